#!/usr/bin/env bash
# Slow heads, slow bodies and slow readers (reliability R8, R9): slowloris.sh PACER. Needs slowhttptest.
# Prints when the attackers' connections were closed, and how the server answered others meanwhile.
set -euo pipefail
pacer=${1:?usage: slowloris.sh PACER}
port=30985
"$pacer" serve --device null --port $port 2> /dev/null &
server=$!
trap 'kill $server 2> /dev/null || true' EXIT
until curl -fs -o /dev/null "http://127.0.0.1:$port/health"; do
    kill -0 $server
    sleep 0.1
done
ulimit -n "$(ulimit -Hn)"
probe() {
    for _ in $(seq "$1"); do
        curl -s -o /dev/null -w '%{http_code} %{time_total}\n' --max-time 5 \
            "http://127.0.0.1:$port/health" || echo "000 5"
        sleep 0.2
    done | sort -n -k 2 | awk '{if ($1 == 200) ok++; t[NR] = $2 * 1e3} END {
        printf "  others: %d of %d answered, p50 %.1f ms, p99 %.1f ms\n", \
            ok, NR, t[int(NR / 2) + 1], t[int(NR * 0.99) + 1]}'
}
for mode in "-H head" "-B body"; do
    set -- $mode
    echo "$2: 2000 connections"
    probe 60 &
    slowhttptest "$1" -c 2000 -r 500 -i 5 -l 40 -t POST -p 3 \
        -u "http://127.0.0.1:$port/generate" 2>&1 | sed 's/\x1b\[[0-9;]*m//g' |
        grep -E '^ *(initializing|pending|connected|error|closed|service available|Exit status|Test ended)' |
        awk '/closed/ {closed = $2} /connected/ {up = $2} {last = $0} END {print "  closed at the end:", closed, "still connected:", up; print "  " last}'
    wait %2 2>/dev/null || true
done
curl -s "http://127.0.0.1:$port/metrics" | grep -E '^pacer_(connections_late|loop_(busy|cpu)_seconds_max)'
