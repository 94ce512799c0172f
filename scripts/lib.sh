# shellcheck shell=bash
# What the scripts that need servers share. Sourced, not run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

job=
holding=

# Installs what is missing, starts the servers, exports their URLs, and makes sure that whatever
# ends this script, what it started is stopped.
services_hold() {
    trap services_cleanup EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 141' PIPE
    trap 'exit 143' TERM
    "$ROOT/scripts/services" install >&2
    holding=1
    local urls
    urls=$("$ROOT/scripts/services" hold $$)
    eval "$urls"
}

services_release() {
    [ -n "$holding" ] || return 0
    holding=
    "$ROOT/scripts/services" release $$
}

services_cleanup() {
    # A second Ctrl-C must not leave servers behind.
    trap '' HUP INT PIPE TERM
    if [ -n "$job" ] && kill -0 -- "-$job" 2>/dev/null; then
        kill -TERM -- "-$job" 2>/dev/null || true
        local i
        for ((i = 0; i < 100; i++)); do
            kill -0 -- "-$job" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL -- "-$job" 2>/dev/null || true
    fi
    services_release || true
}

# run_job COMMAND...: runs it in a process group of its own, so that a signal to this script is
# acted on at once and reaches everything that the command started. Returns its exit status.
run_job() {
    local status=0
    set -m
    (
        set +m
        "$@"
    ) </dev/null &
    job=$!
    set +m
    wait "$job" || status=$?
    job=
    return "$status"
}
