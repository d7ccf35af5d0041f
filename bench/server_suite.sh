#!/usr/bin/env bash
# The server under load, one figure after another: server_suite.sh [--pacer FILE] [NAME…]
# Without names all of them; names are those of the scripts (overhead soak …). Each takes at most
# two minutes, soak five. Writes bench/results/server-NAME.json and bench/results/server.md; exits
# with 1 if any bar was missed. Wants the machine for itself.
set -uo pipefail
cd "$(dirname "$0")/.."
pacer=target/release/pacer
if [ "${1:-}" = --help ]; then sed -n '2,5s/^# //p' "$0"; exit 0; fi
if [ "${1:-}" = --pacer ]; then pacer=$2; shift 2; fi
declare -A scripts=([overhead]=server_overhead [idle]=idle_connections [slow]=slow_clients
    [disconnects]=disconnects [overload]=overload [pressure]=kv_pressure [floods]=floods
    [soak]=soak)
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(overhead idle slow disconnects overload pressure floods soak)
missed=()
for name in "${names[@]}"; do
    script=${scripts[$name]:?no such load: $name}
    printf '\n== %s (%s)\n' "$name" "$(date -u +%H:%M:%S)"
    python3 "bench/$script.py" --pacer "$pacer" || missed+=("$name")
done
python3 - <<'PY'
import json, pathlib
folder = pathlib.Path("bench/results")
lines = ["# The server under load", "", "Written by `bench/server_suite.sh`.", ""]
for file in sorted(folder.glob("server-*.json")):
    run = json.loads(file.read_text())
    lines += [f"## {run['title']}", "", f"`{run['script']}`, {run['date']}, {run['version']}, "
              f"{run['machine']}, load average at the end {run['load_average']:.1f}.", "",
              f"Server: `{run['command']}`", "", "| figure | value | bar | |", "| --- | --- | --- | --- |"]
    for row in run["rows"]:
        mark = "" if not row["bar"] else "holds" if row["holds"] else "**missed**"
        value = f"{row['value']} {row['unit']}".strip()
        lines.append(f"| {row['figure']} | {value} | {row['bar']} | {mark} |")
    lines.append("")
(folder / "server.md").write_text("\n".join(lines))
PY
if [ ${#missed[@]} -gt 0 ]; then echo "missed: ${missed[*]}"; exit 1; fi
