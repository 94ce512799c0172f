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
        [ -n "$bin" ] && [ -x "$bin" ] || continue
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

redis_running() {
    local home
    home=$(engine_home_if_any redis) && daemon_pid "$home" >/dev/null && redis_answers "$home"
}

# redis_start BIN HOME PORT: in the background, its process id in HOME/pid.
redis_start() {
    local bin=$1 home=$2 port=$3
    (
        cd /
        exec 9>&- </dev/null >>"$SERVICES_DIR/redis.log" 2>&1
        # In a group of its own: a Ctrl-C is for the tests, which stop the servers themselves.
        set -m
        # Nothing is kept on disk. With its title left alone, its command line shows whose it is.
        (exec -a "$(redis_name "$bin")" "$bin" --port "$port" --bind 127.0.0.1 --save '' \
            --appendonly no --dir "$home/" --set-proc-title no) &
        printf '%s\n' "$!" >"$home/pid"
    )
}

redis_up() {
    local bin home port attempt i
    bin=$(redis_bin) || die "Redis $REDIS_MIN or later is missing: run scripts/services install redis"
    if redis_running; then
        return
    fi
    home=$(engine_home redis '')
    # A process that lives but does not answer is in the way.
    daemon_stop redis "$home"
    # Somebody else may take the port. It stays the same for a while, so that URLs already handed
    # out stay true.
    for attempt in 1 2 3 4 5; do
        if [ "$attempt" -gt 2 ] || [ ! -s "$home/port" ]; then
            free_port >"$home/port"
        fi
        port=$(cat "$home/port")
        if ! redis_answers "$home"; then
            redis_start "$bin" "$home" "$port"
            for ((i = 0; i < 300; i++)); do
                daemon_pid "$home" >/dev/null || break
                ! redis_answers "$home" || break
                sleep 0.1
            done
            # Whoever lost the race for the port is dead a moment later.
            sleep 0.5
            ! redis_running || break
        fi
        daemon_stop redis "$home"
        if [ "$attempt" -eq 5 ]; then
            tail -n 20 "$SERVICES_DIR/redis.log" >&2
            die "redis did not start, see $SERVICES_DIR/redis.log"
        fi
    done
    say "redis: started $(redis_version "$bin") on 127.0.0.1:$port"
}

redis_status() {
    local bin home pid
    if ! bin=$(redis_bin); then
        echo "redis: not installed (scripts/services install redis)"
    elif ! home=$(engine_home_if_any redis) || ! pid=$(daemon_pid "$home"); then
        echo "redis: stopped"
    elif ! redis_answers "$home"; then
        echo "redis: pid $pid runs but does not answer, see $SERVICES_DIR/redis.log"
    else
        echo "redis: running, $(redis_url "$(cat "$home/port")"), pid $pid, version $(redis_version "$bin")"
        return 0
    fi
    return 3
}

redis_env() {
    redis_running || die "redis does not run: scripts/services up redis"
    echo "export POTTER_TEST_REDIS_URL=$(redis_url "$(cat "$(engine_home_if_any redis)/port")")"
}

redis_down() { daemon_down redis; }
