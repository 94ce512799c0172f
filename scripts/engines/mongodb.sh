# shellcheck shell=bash
# MongoDB, or what speaks its protocol. Part of scripts/services: sourced, not run.

# A real server if there is one, else FerretDB: no package manager carries mongod, and FerretDB
# speaks its protocol. It is built from its source, which the Go module proxy has, once a user.
FERRETDB_VERSION=v1.24.2
FERRETDB_GO=1.24.13 # for machines whose own Go is too old to get a newer one by itself
MONGODB_DATABASE=potter

ferretdb_cached() {
    printf '%s\n' "${XDG_CACHE_HOME:-${HOME:?}/.cache}/potter/ferretdb-$FERRETDB_VERSION/ferretdb"
}

# The program to start; fails if there is none.
mongodb_bin() {
    local mongod=${POTTER_MONGOD:-}
    [ -n "$mongod" ] || mongod=$(command -v mongod || ferretdb_cached)
    [ -x "$mongod" ] && printf '%s\n' "$mongod"
}

# mongodb_kind BIN: "mongod 7.0.14" or "FerretDB v1.24.2".
mongodb_kind() {
    case $1 in
    */ferretdb) printf 'FerretDB %s\n' "$("$1" --version 2>/dev/null | sed -n 's/^version: //p')" ;;
    *) printf 'mongod %s\n' "$("$1" --version 2>/dev/null | sed -n 's/^db version v//p')" ;;
    esac
}

# go_minor GO: 24 for "go version go1.24.3 linux/amd64".
go_minor() {
    "$1" version 2>/dev/null | sed -n 's/^go version go1\.\([0-9][0-9]*\).*/\1/p'
}

# A Go that can build FerretDB, in DIR if it has to be downloaded. From 1.21 on Go gets the version
# that a module asks for; an older one is only good for downloading a newer one.
go_for_ferretdb() {
    local go=$1 dir=$2 minor os arch
    minor=$(go_minor "$go")
    if [ "${minor:-0}" -ge 21 ]; then
        printf '%s\n' "$go"
        return
    fi
    os=$("$go" env GOOS)
    arch=$("$go" env GOARCH)
    say "go 1.$minor is too old: downloading go $FERRETDB_GO (70 MB)"
    mkdir -p "$dir/toolchain"
    (cd "$dir/toolchain" &&
        "$go" mod download "golang.org/toolchain@v0.0.1-go$FERRETDB_GO.$os-$arch") >&2
    dir=$dir/go/pkg/mod/golang.org/toolchain@v0.0.1-go$FERRETDB_GO.$os-$arch
    # The module cache keeps no permissions.
    chmod -R u+x "$dir/bin" "$dir/pkg/tool"
    printf '%s\n' "$dir/bin/go"
}

# ferretdb_build GO TARGET: all of the build is in a directory of its own, which is deleted.
ferretdb_build() (
    go=$1
    target=$2
    mkdir -p "$(dirname "$target")"
    dir=$(mktemp -d "$(dirname "$target")/build.XXXXXX")
    trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
    # The user's settings for Go are for the user's programs; the proxy is the machine's.
    unset GOROOT GOBIN GOWORK
    export GOPATH=$dir/go GOCACHE=$dir/cache GOFLAGS=-modcacherw GO111MODULE=on CGO_ENABLED=0
    go=$(go_for_ferretdb "$go" "$dir")
    say "building FerretDB $FERRETDB_VERSION: two minutes or three, downloads 150 MB at most"
    # Whoever calls it tests it, so that bash goes on after an error here unless told not to.
    mkdir "$dir/empty" && cd "$dir/empty" || exit 1
    "$go" mod download "github.com/FerretDB/FerretDB@$FERRETDB_VERSION" >&2 || exit 1
    # A copy, because the program wants its version in a file that the module does not have:
    # without it, it panics at start.
    cp -R "$dir/go/pkg/mod/github.com/!ferret!d!b/!ferret!d!b@$FERRETDB_VERSION" "$dir/source" || exit 1
    printf '%s\n' "$FERRETDB_VERSION" >"$dir/source/build/version/version.txt" || exit 1
    cd "$dir/source" || exit 1
    "$go" build -buildvcs=false -trimpath -ldflags '-s -w' -o "$dir/ferretdb" ./cmd/ferretdb >&2 ||
        exit 1
    "$dir/ferretdb" --version >/dev/null &&
        mv "$dir/ferretdb" "$target"
)

mongodb_install() {
    local bin go target
    if bin=$(mongodb_bin); then
        say "mongodb: $(mongodb_kind "$bin") in $bin"
        return
    fi
    [ -z "${POTTER_MONGOD:-}" ] || die "POTTER_MONGOD=$POTTER_MONGOD is not a program"
    target=$(ferretdb_cached)
    if ! go=$(command -v go); then
        if ! command -v apt-get >/dev/null 2>&1 || ! can_be_admin; then
            die "there is no mongod, and building FerretDB in its place needs Go 1.21 or later:
  Debian, Ubuntu  sudo apt-get update && sudo apt-get install golang-go
  macOS           brew install go
  elsewhere       https://go.dev/doc/install
or install MongoDB (https://www.mongodb.com/docs/manual/installation/), and put mongod on the PATH
or its path into POTTER_MONGOD"
        fi
        say "there is no mongod; FerretDB in its place needs Go"
        as_admin apt-get update -qq </dev/null >&2
        apt_install golang-go || die "apt-get could not install golang-go"
        go=$(command -v go) || die "golang-go has no program go"
    fi
    ferretdb_build "$go" "$target" || die "FerretDB $FERRETDB_VERSION was not built, see above"
    say "mongodb: $(mongodb_kind "$target") in $target"
}

mongodb_url() {
    printf 'mongodb://127.0.0.1:%s/%s\n' "$1" "$MONGODB_DATABASE"
}

# {ping: 1, $db: "admin"} as OP_MSG, and whether the answer has {ok: 1.0}.
mongodb_answers() {
    local port answer limit=
    port=$(cat "$1/port" 2>/dev/null) || return 1
    ! command -v timeout >/dev/null 2>&1 || limit='timeout 5'
    answer=$(
        exec 2>/dev/null
        exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
        # shellcheck disable=SC2016 # a dollar is a dollar
        printf '\63\0\0\0\1\0\0\0\0\0\0\0\335\7\0\0\0\0\0\0\0\36\0\0\0\20ping\0\1\0\0\0\2$db\0\6\0\0\0admin\0\0' >&3
        # The length comes first. It is a small answer.
        length=$($limit head -c 4 <&3 | od -An -tu4 | tr -d ' ') || exit 1
        [ "${length:-0}" -gt 4 ] && [ "$length" -lt 65536 ] || exit 1
        $limit head -c $((length - 4)) <&3 | od -An -v -tx1 | tr -d ' \n'
    ) || return 1
    # 01 "ok" 00, then the double 1.0.
    case $answer in
    *016f6b00000000000000f03f*) return 0 ;;
    *) return 1 ;;
    esac
}

mongodb_start() {
    local bin=$1 home=$2 port=$3
    mkdir -p "$home/data" "$home/state"
    case $bin in
    */ferretdb)
        set -- "$bin" --handler=sqlite --sqlite-url="file:$home/data/" --state-dir="$home/state" \
            --listen-addr="127.0.0.1:$port" --debug-addr=- --telemetry=disable --log-level=error
        ;;
    *)
        set -- "$bin" --dbpath "$home/data" --port "$port" --bind_ip 127.0.0.1 --nounixsocket
        ;;
    esac
    daemon_spawn mongodb "$home" "$@"
}

mongodb_up() {
    local bin
    bin=$(mongodb_bin) || die "neither mongod nor FerretDB is there: run scripts/services install mongodb"
    daemon_up mongodb "$bin"
}

mongodb_running() { daemon_running mongodb; }
mongodb_status() { daemon_status mongodb; }
mongodb_env() { daemon_env mongodb POTTER_TEST_MONGO_URL; }
mongodb_down() { daemon_down mongodb; }
