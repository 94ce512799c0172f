# shellcheck shell=bash
# Engines that are one process. Part of scripts/services: sourced, not run.
#
# Its process id is in HOME/pid, its port in HOME/port, its kind in HOME/kind, its log in
# SERVICES_DIR/ENGINE.log, and its command line has HOME in it. The engine's file has
#
#   ENGINE_bin               prints the program to start; fails if there is none
#   ENGINE_kind BIN          its name and version
#   ENGINE_start BIN HOME PORT   calls daemon_spawn
#   ENGINE_answers HOME      whether a request to the port in HOME/port is answered
#   ENGINE_url PORT          the URL for tests

# daemon_pid HOME: the server's process, if it is alive and really ours.
daemon_pid() {
    local pid
    pid=$(cat "$1/pid" 2>/dev/null) && [ -n "$pid" ] || return 1
    case $(command_line "$pid") in
    *"$1/"*) printf '%s\n' "$pid" ;;
    *) return 1 ;;
    esac
}

daemon_running() {
    local home
    home=$(engine_home_if_any "$1") && daemon_pid "$home" >/dev/null && "$1_answers" "$home"
}

# daemon_spawn ENGINE HOME COMMAND...: in the background. None of its files but the log is outside of
# HOME; it gets no descriptor of ours, above all not that of the lock.
daemon_spawn() {
    local engine=$1 home=$2
    shift 2
    (
        cd /
        exec 9>&- </dev/null >>"$SERVICES_DIR/$engine.log" 2>&1
        # In a group of its own: a Ctrl-C is for the tests, which stop the servers themselves.
        set -m
        "$@" &
        printf '%s\n' "$!" >"$home/pid"
    )
}

# daemon_up ENGINE BIN: returns when it answers.
daemon_up() {
    local engine=$1 bin=$2 home port attempt i
    ! daemon_running "$engine" || return 0
    home=$(engine_home "$engine" '')
    # A process that lives but does not answer is in the way.
    daemon_stop "$engine" "$home"
    # Data of another kind or version may not be readable.
    if [ "$(cat "$home/kind" 2>/dev/null)" != "$("${engine}_kind" "$bin")" ]; then
        rm -rf "$home/data" "$home/state"
        "${engine}_kind" "$bin" >"$home/kind"
    fi
    # Somebody else may take the port. It stays the same for a while, so that URLs already handed
    # out stay true.
    for attempt in 1 2 3 4 5; do
        if [ "$attempt" -gt 2 ] || [ ! -s "$home/port" ]; then
            free_port >"$home/port"
        fi
        port=$(cat "$home/port")
        if ! "${engine}_answers" "$home"; then
            "${engine}_start" "$bin" "$home" "$port"
            for ((i = 0; i < 600; i++)); do
                # Not daemon_pid: until it is executed, its command line is this script's.
                kill -0 "$(cat "$home/pid")" 2>/dev/null || break
                ! "${engine}_answers" "$home" || break
                sleep 0.1
            done
            # Whoever lost the race for the port is dead a moment later.
            sleep 1
            ! daemon_running "$engine" || break
        fi
        daemon_stop "$engine" "$home"
        if [ "$attempt" -eq 5 ]; then
            tail -n 20 "$SERVICES_DIR/$engine.log" >&2
            die "$engine did not start, see $SERVICES_DIR/$engine.log"
        fi
    done
    say "$engine: started $(cat "$home/kind") on 127.0.0.1:$port"
}

# One line; status 3 if it does not answer.
daemon_status() {
    local engine=$1 home pid
    if ! "${engine}_bin" >/dev/null; then
        echo "$engine: not installed (scripts/services install $engine)"
    elif ! home=$(engine_home_if_any "$engine") || ! pid=$(daemon_pid "$home"); then
        echo "$engine: stopped"
    elif ! "${engine}_answers" "$home"; then
        echo "$engine: pid $pid runs but does not answer, see $SERVICES_DIR/$engine.log"
    else
        echo "$engine: running, $("${engine}_url" "$(cat "$home/port")"), pid $pid, $(cat "$home/kind"), data $home"
        return 0
    fi
    return 3
}

# daemon_env ENGINE VARIABLE
daemon_env() {
    daemon_running "$1" || die "$1 does not run: scripts/services up $1"
    echo "export $2=$("$1_url" "$(cat "$(engine_home_if_any "$1")/port")")"
}

# daemon_stop ENGINE HOME: returns when the process is gone.
daemon_stop() {
    local pid signal i
    for signal in TERM KILL; do
        pid=$(daemon_pid "$2") || return 0
        kill -"$signal" "$pid" 2>/dev/null || true
        for ((i = 0; i < 100; i++)); do
            daemon_pid "$2" >/dev/null || return 0
            sleep 0.1
        done
    done
    die "$1 (pid $pid) does not stop"
}

daemon_down() {
    local home
    home=$(engine_home_if_any "$1") || return 0
    if daemon_pid "$home" >/dev/null; then
        daemon_stop "$1" "$home"
        say "$1: stopped, data deleted"
    fi
    forget_engine_home "$1"
}
