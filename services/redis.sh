# Redis and what is like it on a free port of the loopback interface. Sourced by the files
# in servers/, which set
#   name      of the server, for messages and the variable of its URL
#   server    its program, and client: its command line client; with their paths
#   install_server, which makes them be there
# What is stored is gone when the server stops; the system's own Redis is left alone.

say() { echo "$name: $*" >&2; }

port() { cat "$SERVICES_RUN/port" 2>/dev/null || true; }
pid() { cat "$SERVICES_RUN/redis.pid" 2>/dev/null || true; }

# Ours, not somebody else's who took the port meanwhile.
answers() {
    [ -n "$(port)" ] && [ -n "$(pid)" ] && kill -0 "$(pid)" 2>/dev/null &&
        "$client" -h 127.0.0.1 -p "$(port)" info server 2>/dev/null |
        grep -q "^process_id:$(pid)"
}

free_port() {
    "${PYTHON:-python3}" -c \
        'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start() {
    command -v "$server" >/dev/null 2>&1 || install_server
    if ! answers; then
        mkdir -p "$SERVICES_RUN"
        chmod 700 "$SERVICES_RUN"
        free_port >"$SERVICES_RUN/port"
        "$server" --bind 127.0.0.1 --port "$(port)" --dir "$SERVICES_RUN" \
            --save "" --appendonly no --daemonize yes \
            --pidfile "$SERVICES_RUN/redis.pid" --logfile "$SERVICES_RUN/redis.log" >&2
        tries=0
        until answers; do
            tries=$((tries + 1))
            if [ "$tries" -gt 100 ]; then
                say "it does not answer after 10 s; its log is $SERVICES_RUN/redis.log"
                exit 1
            fi
            sleep 0.1
        done
    fi
    echo "CHERVIL_TEST_$(echo "$name" | tr '[:lower:]' '[:upper:]')_URL=redis://127.0.0.1:$(port)/0"
}

stop() {
    if answers; then
        process=$(pid)
        kill "$process"
        while kill -0 "$process" 2>/dev/null; do sleep 0.1; done
    fi
    rm -f "$SERVICES_RUN/redis.pid" "$SERVICES_RUN/port"
}

main() {
    case ${1:-} in
    start) start ;;
    stop) stop ;;
    *)
        say "call it with start or stop"
        exit 2
        ;;
    esac
}
