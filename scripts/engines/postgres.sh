# shellcheck shell=bash
# PostgreSQL. Part of scripts/services: sourced, not run.

POSTGRES_MIN=15
POSTGRES_USER=potter
POSTGRES_DATABASE=potter

# postgres_major BINDIR: 15 for "postgres (PostgreSQL) 15.14 (Debian …)".
postgres_major() {
    "$1/postgres" --version 2>/dev/null | sed -n 's/^[^0-9]*\([0-9][0-9]*\).*/\1/p'
}

# The directory of the newest complete set of binaries; fails if none is new enough.
postgres_bin() {
    local dir tool major best='' best_major=0
    local candidates=("${POTTER_POSTGRES_BIN:-}")
    if [ -z "${POTTER_POSTGRES_BIN:-}" ]; then
        candidates+=(
            "$(dirname "$(command -v initdb || echo /none/initdb)")"
            "$(pg_config --bindir 2>/dev/null || true)"
            /usr/lib/postgresql/*/bin
            /usr/pgsql-*/bin
            /opt/homebrew/opt/postgresql@*/bin
            /usr/local/opt/postgresql@*/bin
        )
    fi
    for dir in "${candidates[@]}"; do
        for tool in postgres initdb pg_ctl pg_isready psql createdb; do
            [ -x "${dir:-/none}/$tool" ] || continue 2
        done
        major=$(postgres_major "$dir")
        if [ "${major:-0}" -ge "$POSTGRES_MIN" ] && [ "$major" -gt "$best_major" ]; then
            best=$dir
            best_major=$major
        fi
    done
    [ -n "$best" ] && printf '%s\n' "$best"
}

postgres_restore_conf() {
    local conf=/etc/postgresql-common/createcluster.conf
    [ ! -f "$conf.potter" ] || as_admin mv "$conf.potter" "$conf"
}

postgres_install() {
    local bin
    if bin=$(postgres_bin); then
        say "postgres: $("$bin/postgres" --version) in $bin"
        return
    fi
    if [ -n "${POTTER_POSTGRES_BIN:-}" ]; then
        die "POTTER_POSTGRES_BIN=$POTTER_POSTGRES_BIN has no PostgreSQL $POSTGRES_MIN or later"
    fi
    if ! command -v apt-get >/dev/null 2>&1; then
        die "PostgreSQL $POSTGRES_MIN or later is missing. Install it, then try again:
  macOS           brew install postgresql@17
  Fedora, RHEL    sudo dnf install postgresql-server postgresql-contrib
  Arch            sudo pacman -S postgresql
  elsewhere       https://www.postgresql.org/download/, then set POTTER_POSTGRES_BIN"
    fi
    if ! can_be_admin; then
        die "PostgreSQL $POSTGRES_MIN or later is missing, and installing it needs root. Run:
  sudo apt-get update && sudo apt-get install postgresql"
    fi
    say "PostgreSQL $POSTGRES_MIN or later is missing"
    # Left by an installation that was killed.
    postgres_restore_conf
    as_admin apt-get update -qq </dev/null >&2
    # The package would make a cluster and start it at every boot. That is the user's to decide, so
    # it is told not to, for this one installation.
    apt_install postgresql-common
    local conf=/etc/postgresql-common/createcluster.conf status=0
    trap postgres_restore_conf EXIT
    if [ -f "$conf" ]; then
        as_admin cp -p "$conf" "$conf.potter"
        as_admin sh -c "printf 'create_main_cluster = false\n' >> '$conf'"
    fi
    apt_install postgresql || status=$?
    postgres_restore_conf
    trap - EXIT
    [ "$status" -eq 0 ] || die "apt-get could not install postgresql"
    bin=$(postgres_bin) ||
        die "this system's PostgreSQL is older than $POSTGRES_MIN: see https://www.postgresql.org/download/linux/"
    say "postgres: $("$bin/postgres" --version) in $bin"
}

# postgres_pid HOME: the server's process, if it is alive and really ours.
postgres_pid() {
    local pid
    pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) || return 1
    case $(command_line "$pid") in
    *"$1/data"*) printf '%s\n' "$pid" ;;
    *) return 1 ;;
    esac
}

# PostgreSQL clears the pid file of a dead server by itself, and needs it to see that server's last
# children. What it cannot know is that the number now belongs to somebody else's process.
postgres_drop_foreign_pid() {
    local pid
    pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) || return 0
    if [ -n "$(command_line "$pid")" ] && ! postgres_pid "$1" >/dev/null; then
        rm -f "$1/data/postmaster.pid"
    fi
}

postgres_url() {
    printf 'postgres://%s@127.0.0.1:%s/%s\n' "$POSTGRES_USER" "$1" "$POSTGRES_DATABASE"
}

# postgres_answers BIN HOME DATABASE: a query works, and it is this server that answers.
postgres_answers() {
    local port
    port=$(cat "$2/port" 2>/dev/null) || return 1
    "$1/pg_isready" -q -t 5 -h 127.0.0.1 -p "$port" >/dev/null 2>&1 || return 1
    [ "$("$1/psql" -X -A -t -w -h 127.0.0.1 -p "$port" -U "$POSTGRES_USER" -d "$3" \
        -c 'show data_directory' </dev/null 2>/dev/null)" = "$2/data" ]
}

postgres_running() {
    local bin home
    bin=$(postgres_bin) && home=$(engine_home_if_any postgres) &&
        postgres_pid "$home" >/dev/null && postgres_answers "$bin" "$home" "$POSTGRES_DATABASE"
}

postgres_init() {
    local bin=$1 home=$2 user=$3 socket_dir=$2
    # The kernel allows a socket 107 characters.
    [ ${#home} -le 90 ] || socket_dir=
    rm -rf "$home/data"
    as "$user" "$bin/initdb" -D "$home/data" -U "$POSTGRES_USER" -A trust -E UTF8 --no-locale \
        --no-sync >"$SERVICES_DIR/postgres.log" 2>&1 </dev/null || {
        tail -n 20 "$SERVICES_DIR/postgres.log" >&2
        die "initdb failed"
    }
    # As durable as a production server, so that crash tests and benchmarks mean something.
    cat >>"$home/data/postgresql.conf" <<CONF

listen_addresses = '127.0.0.1'
unix_socket_directories = '$socket_dir'
fsync = on
synchronous_commit = on
full_page_writes = on
max_connections = 200
wal_level = logical
max_prepared_transactions = 64
shared_buffers = 256MB
max_wal_size = 4GB
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%a %d '
CONF
}

postgres_up() {
    local bin home user port attempt
    bin=$(postgres_bin) ||
        die "PostgreSQL $POSTGRES_MIN or later is missing: run scripts/services install postgres"
    if postgres_running; then
        return
    fi
    user=$(server_user postgres)
    home=$(engine_home postgres "$user")
    # A process that lives but does not answer is in the way.
    postgres_stop "$bin" "$home" "$user"
    # An interrupted start may have left half a data directory, an upgrade one of another version.
    if [ ! -f "$home/ready" ] || [ "$(cat "$home/data/PG_VERSION" 2>/dev/null)" != "$(postgres_major "$bin")" ]; then
        rm -f "$home/ready"
        postgres_init "$bin" "$home" "$user"
    fi
    # Several attempts: a killed server's children need a moment to go, and somebody may take the
    # port. The port stays the same for a while, so that URLs already handed out stay true.
    for attempt in 1 2 3 4 5; do
        if [ "$attempt" -gt 3 ] || [ ! -s "$home/port" ]; then
            free_port >"$home/port"
        fi
        port=$(cat "$home/port")
        postgres_drop_foreign_pid "$home"
        if as "$user" "$bin/pg_ctl" -D "$home/data" -o "-p $port" -w -t 60 start \
            >>"$SERVICES_DIR/postgres.log" 2>&1 </dev/null &&
            postgres_answers "$bin" "$home" postgres; then
            # pg_ctl can report success for a server that dies a moment later.
            sleep 1
            if postgres_pid "$home" >/dev/null && postgres_answers "$bin" "$home" postgres; then
                break
            fi
        fi
        postgres_stop "$bin" "$home" "$user"
        if [ "$attempt" -eq 5 ]; then
            tail -n 20 "$SERVICES_DIR/postgres.log" >&2
            die "postgres did not start, see $SERVICES_DIR/postgres.log"
        fi
        sleep 1
    done
    if ! postgres_answers "$bin" "$home" "$POSTGRES_DATABASE"; then
        "$bin/createdb" -w -h 127.0.0.1 -p "$port" -U "$POSTGRES_USER" "$POSTGRES_DATABASE" </dev/null >&2
    fi
    postgres_answers "$bin" "$home" "$POSTGRES_DATABASE" ||
        die "postgres does not answer, see $SERVICES_DIR/postgres.log"
    : >"$home/ready"
    say "postgres: started on 127.0.0.1:$port"
}

# postgres_stop BIN HOME USER: returns when the process is gone.
postgres_stop() {
    local mode
    for mode in fast immediate; do
        postgres_pid "$2" >/dev/null || return 0
        as "$3" "$1/pg_ctl" -D "$2/data" -m "$mode" -w -t 20 stop \
            >>"$SERVICES_DIR/postgres.log" 2>&1 </dev/null || true
    done
    ! postgres_pid "$2" >/dev/null || die "postgres (pid $(postgres_pid "$2")) does not stop"
}

postgres_down() {
    local bin home
    home=$(engine_home_if_any postgres) || return 0
    if postgres_pid "$home" >/dev/null; then
        bin=$(postgres_bin) || die "postgres runs (pid $(postgres_pid "$home")), but its pg_ctl is not found"
        postgres_stop "$bin" "$home" "$(server_user postgres)"
        say "postgres: stopped, data deleted"
    fi
    forget_engine_home postgres
}

postgres_status() {
    local bin home pid
    if ! bin=$(postgres_bin); then
        echo "postgres: not installed (scripts/services install postgres)"
    elif ! home=$(engine_home_if_any postgres) || ! pid=$(postgres_pid "$home"); then
        echo "postgres: stopped"
    elif ! postgres_answers "$bin" "$home" "$POSTGRES_DATABASE"; then
        echo "postgres: pid $pid runs but does not answer, see $SERVICES_DIR/postgres.log"
    else
        echo "postgres: running, $(postgres_url "$(cat "$home/port")"), pid $pid, version $(postgres_major "$bin"), data $home/data"
        return 0
    fi
    return 3
}

postgres_env() {
    postgres_running || die "postgres does not run: scripts/services up postgres"
    echo "export POTTER_TEST_POSTGRES_URL=$(postgres_url "$(cat "$(engine_home_if_any postgres)/port")")"
}
