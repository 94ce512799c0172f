# shellcheck shell=bash
# ClickHouse, or its engine behind an HTTP front. Part of scripts/services: sourced, not run.

# A real server if there is one, else the real engine as a library (PyPI's chdb-core) behind
# scripts/clickhouse_http.py. Debian's own clickhouse-server is of 2018: too old for both sides.
CLICKHOUSE_MIN=23
CHDB_VERSION=26.9.0
CLICKHOUSE_DATABASE=default

chdb_home() {
    printf '%s\n' "${XDG_CACHE_HOME:-${HOME:?}/.cache}/potter/chdb-$CHDB_VERSION"
}

# clickhouse_version BIN: 24.8.4.13 for "ClickHouse server version 24.8.4.13 (official build)."
clickhouse_version() {
    "$1" --version 2>/dev/null | sed -n 's/^ClickHouse.* version \([0-9][0-9.]*[0-9]\).*/\1/p'
}

# The server's program, or the Python that has the engine; fails if there is none.
clickhouse_bin() {
    local bin version
    for bin in "${POTTER_CLICKHOUSE:-}" "$(command -v clickhouse-server || true)" "$(command -v clickhouse || true)"; do
        if [ -z "$bin" ] || [ ! -x "$bin" ]; then continue; fi
        version=$(clickhouse_version "$bin")
        version=${version%%.*}
        if [ "${version:-0}" -ge "$CLICKHOUSE_MIN" ]; then
            printf '%s\n' "$bin"
            return
        fi
    done
    [ -z "${POTTER_CLICKHOUSE:-}" ] && [ -f "$(chdb_home)/complete" ] &&
        printf '%s\n' "$(chdb_home)/bin/python"
}

# clickhouse_kind BIN: "ClickHouse 24.8.4.13" or "chdb-core 26.9.0".
clickhouse_kind() {
    case $1 in
    */python) printf 'chdb-core %s\n' "$CHDB_VERSION" ;;
    *) printf 'ClickHouse %s\n' "$(clickhouse_version "$1")" ;;
    esac
}

# Complete or not there: the mark is written last.
chdb_install() (
    home=$(chdb_home)
    mkdir -p "$(dirname "$home")"
    # Others may want it at the same time.
    exec 8>"$home.lock"
    ! command -v flock >/dev/null 2>&1 || flock -w 900 8 || exit 1
    [ ! -f "$home/complete" ] || exit 0
    rm -rf "$home"
    say "downloading ClickHouse's engine from PyPI, chdb-core $CHDB_VERSION (181 MB, 600 MB on disk)"
    python3 -m venv "$home" >&2 &&
        "$home/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
            "chdb-core==$CHDB_VERSION" lz4 >&2 &&
        "$home/bin/python" -c 'import chdb, lz4.block' >&2 &&
        : >"$home/complete"
)

clickhouse_install() {
    local bin
    if bin=$(clickhouse_bin); then
        say "clickhouse: $(clickhouse_kind "$bin") in $bin"
        return
    fi
    if [ -n "${POTTER_CLICKHOUSE:-}" ]; then
        die "POTTER_CLICKHOUSE=$POTTER_CLICKHOUSE is not ClickHouse $CLICKHOUSE_MIN or later"
    fi
    if ! python3 -c 'import ensurepip, venv' >/dev/null 2>&1; then
        if ! command -v apt-get >/dev/null 2>&1 || ! can_be_admin; then
            die "there is no ClickHouse $CLICKHOUSE_MIN or later, and its engine from PyPI needs Python with venv:
  Debian, Ubuntu  sudo apt-get update && sudo apt-get install python3-venv
  elsewhere       https://www.python.org/downloads/
or install ClickHouse (https://clickhouse.com/docs/install), and put clickhouse on the PATH or its
path into POTTER_CLICKHOUSE"
        fi
        say "there is no ClickHouse; its engine from PyPI needs Python with venv"
        as_admin apt-get update -qq </dev/null >&2
        apt_install python3-venv || die "apt-get could not install python3-venv"
    fi
    chdb_install || die "chdb-core $CHDB_VERSION was not installed, see above"
    bin=$(clickhouse_bin) || die "chdb-core $CHDB_VERSION does not run here"
    say "clickhouse: $(clickhouse_kind "$bin") in $bin"
}

clickhouse_url() {
    printf 'http://127.0.0.1:%s/%s\n' "$1" "$CLICKHOUSE_DATABASE"
}

# A query works.
clickhouse_answers() {
    local port answer limit=
    port=$(cat "$1/port" 2>/dev/null) || return 1
    ! command -v timeout >/dev/null 2>&1 || limit='timeout 5'
    answer=$(
        exec 2>/dev/null
        exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
        printf 'GET /?query=SELECT%%2041%%2B1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
        $limit head -c 4096 <&3 | tr -d '\r'
    ) || return 1
    case $answer in
    "HTTP/1.1 200"*42*) return 0 ;;
    *) return 1 ;;
    esac
}

clickhouse_config() {
    cat >"$1/config.xml" <<CONF
<clickhouse>
    <logger><level>warning</level><console>1</console></logger>
    <listen_host>127.0.0.1</listen_host>
    <http_port>$2</http_port>
    <path>$1/data/</path>
    <tmp_path>$1/tmp/</tmp_path>
    <user_files_path>$1/user_files/</user_files_path>
    <format_schema_path>$1/format_schemas/</format_schema_path>
    <user_directories><users_xml><path>$1/config.xml</path></users_xml></user_directories>
    <users>
        <default>
            <password></password>
            <networks><ip>127.0.0.1</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
        </default>
    </users>
    <profiles><default/></profiles>
    <quotas><default/></quotas>
</clickhouse>
CONF
}

clickhouse_start() {
    local bin=$1 home=$2 port=$3
    mkdir -p "$home/data"
    case $bin in
    */python) set -- "$bin" "$ROOT/scripts/clickhouse_http.py" "$home/data" "$port" ;;
    */clickhouse-server)
        clickhouse_config "$home" "$port"
        set -- "$bin" --config-file="$home/config.xml"
        ;;
    *)
        clickhouse_config "$home" "$port"
        set -- "$bin" server --config-file="$home/config.xml"
        ;;
    esac
    daemon_spawn clickhouse "$home" "$@"
}

clickhouse_up() {
    local bin
    bin=$(clickhouse_bin) ||
        die "neither ClickHouse $CLICKHOUSE_MIN nor chdb-core is there: run scripts/services install clickhouse"
    daemon_up clickhouse "$bin"
}

clickhouse_running() { daemon_running clickhouse; }
clickhouse_status() { daemon_status clickhouse; }
clickhouse_env() { daemon_env clickhouse POTTER_TEST_CLICKHOUSE_URL; }
clickhouse_down() { daemon_down clickhouse; }
