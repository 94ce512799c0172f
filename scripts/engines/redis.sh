# shellcheck shell=bash
# Redis. Part of scripts/services: sourced, not run.

REDIS_MIN=6

# The server's program; fails if there is none that is new enough. Debian's package redis-server
# would also start a server at every boot, which is the user's to decide. Its redis-tools has the
# same program without that: redis-check-rdb is the server, which looks at its own name.
redis_bin() {
    local bin version
    for bin in "${POTTER_REDIS:-}" "$(command -v redis-server || true)" \
        "$(command -v valkey-server || true)" "$(command -v redis-check-rdb || true)"; do
        if [ -z "$bin" ] || [ ! -x "$bin" ]; then continue; fi
        version=$(redis_version "$bin")
        version=${version%%.*}
        if [ "${version:-0}" -ge "$REDIS_MIN" ]; then
            printf '%s\n' "$bin"
            return
        fi
        [ -z "${POTTER_REDIS:-}" ] || return 1
    done
    return 1
}

# redis_version BIN: 7.0.15 for "Redis server v=7.0.15 sha=00000000:0 …", 8.1.1 for Valkey's.
redis_version() {
    (exec -a "$(redis_name "$1")" "$1" --version) 2>/dev/null |
        sed -n 's/^[A-Za-z]* server v=\([0-9][0-9.]*\).*/\1/p'
}

redis_kind() {
    printf 'Redis %s\n' "$(redis_version "$1")"
}

# redis_name BIN: the name under which it is the server.
redis_name() {
    case $1 in
    *redis-check-rdb) echo redis-server ;;
    *) printf '%s\n' "$1" ;;
    esac
}

redis_install() {
    local bin
    if bin=$(redis_bin); then
        say "redis: $(redis_version "$bin") in $bin"
        return
    fi
    [ -z "${POTTER_REDIS:-}" ] || die "POTTER_REDIS=$POTTER_REDIS is not Redis $REDIS_MIN or later"
    if ! command -v apt-get >/dev/null 2>&1; then
        die "Redis $REDIS_MIN or later is missing. Install it, then try again:
  macOS           brew install redis
  Fedora, RHEL    sudo dnf install redis, or valkey
  Arch            sudo pacman -S valkey
  elsewhere       https://redis.io/docs/latest/operate/oss_and_stack/install/, then put redis-server
                  on the PATH or its path into POTTER_REDIS"
    fi
    if ! can_be_admin; then
        die "Redis $REDIS_MIN or later is missing, and installing it needs root. Run:
  sudo apt-get update && sudo apt-get install redis-tools"
    fi
    say "Redis $REDIS_MIN or later is missing"
    as_admin apt-get update -qq </dev/null >&2
    apt_install redis-tools || die "apt-get could not install redis-tools"
    bin=$(redis_bin) ||
        die "this system's Redis is older than $REDIS_MIN: put a newer redis-server on the PATH or its path into POTTER_REDIS"
    say "redis: $(redis_version "$bin") in $bin"
}

redis_url() {
    printf 'redis://127.0.0.1:%s/0\n' "$1"
}

redis_answers() {
    local port answer limit=
    port=$(cat "$1/port" 2>/dev/null) || return 1
    ! command -v timeout >/dev/null 2>&1 || limit='timeout 5'
    answer=$(
        exec 2>/dev/null
        exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
        printf 'PING\r\n' >&3
        $limit head -c 5 <&3
    ) || return 1
    [ "$answer" = +PONG ]
}

redis_start() {
    # Nothing is kept on disk. With its title left alone, its command line shows whose it is.
    daemon_spawn redis "$2" redis_exec "$1" --port "$3" --bind 127.0.0.1 --save '' \
        --appendonly no --dir "$2/" --set-proc-title no
}

redis_exec() {
    exec -a "$(redis_name "$1")" "$@"
}

redis_up() {
    local bin
    bin=$(redis_bin) || die "Redis $REDIS_MIN or later is missing: run scripts/services install redis"
    daemon_up redis "$bin"
}

redis_running() { daemon_running redis; }
redis_status() { daemon_status redis; }
redis_env() { daemon_env redis POTTER_TEST_REDIS_URL; }
redis_down() { daemon_down redis; }
