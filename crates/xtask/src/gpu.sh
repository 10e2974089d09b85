#!/usr/bin/env bash
# On a machine with a card: bash run.sh tests, then bash run.sh benches [GROUP…]. Leaves report.md, the raw results and the logs
# in $OUT, or in results beside this script; a second call adds to the first one's report. Every part has a time limit, none
# stops the others; with LIMIT=N a call takes no longer than N seconds.
set -u
cd "$(dirname "$0")" || exit 2
here=$PWD
out=${OUT:-$here/results}
limit=${LIMIT:-86400}
report=$out/report.md
logs=$here/logs
failed=0
export FERROGRAD_CACHE=$here/cache
rm -rf "$logs"
mkdir -p "$out" "$logs"

if [ ! -d tests ]; then
  tar -xf programs.tar.xz || python3 -c 'import tarfile; tarfile.open("programs.tar.xz").extractall()' || exit 2
fi

say() { printf '%s\n' "$@" | tee -a "$report"; }

# part NAME SECONDS WORDS COMMAND…: runs it, within its time and what is left of the whole's. A row of the report has how it
# ended, and the last line of its output in which WORDS is found.
part() {
  local name=$1 most=$2 words=$3 left=$((limit - SECONDS - 15)) start=$SECONDS status=124 result log
  shift 3
  log=$logs/${name//[^a-zA-Z0-9]/-}.log
  if [ "$left" -lt "$most" ]; then most=$left; fi
  if [ "$most" -ge 5 ]; then
    timeout -k 5 "$most" "$@" > "$log" 2>&1
    status=$?
  else
    echo "no time left" > "$log"
  fi
  case $status in 0) result=ok ;; 124 | 137) result="out of time" ;; *) result="**failed** ($status)" ;; esac
  [ $status -eq 0 ] || failed=1
  say "| $name | $result | $((SECONDS - start)) | $(grep -h -- "$words" "$log" | tail -n 1 | tr '|' '/') |"
}

head_of_parts() { say "" "| what | result | s | last words |" "|---|---|--:|---|"; }

tests() {
  local built=@built@ test tool name text device
  # The tests look for golden files where they were built.
  if [ ! -e "$built" ]; then
    mkdir -p "$(dirname "$built")"
    ln -s "$(git rev-parse --show-toplevel 2> /dev/null || dirname "$here")" "$built"
  fi
  say "" "## Tests"
  head_of_parts
  for test in tests/*; do part "$(basename "$test")" 120 '^test result' "$test"; done
  text=$logs/text.txt
  for i in $(seq 2000); do echo "To be, or not to be, that is the question: line $i."; done > "$text"
  for device in cpu cuda; do
    part "gpt on $device" 60 step ./gpt --preset tiny --device $device --text "$text" --out "$logs/gpt-$device" --length 40
  done
  if command -v compute-sanitizer > /dev/null; then
    for tool in memcheck racecheck; do
      for name in matmul matmul_wgmma attention recurrent conv pool fused optimizer graph ladder required; do
        part "$tool $name" 120 'SUMMARY' compute-sanitizer --tool $tool --error-exitcode 9 "tests/$name" --test-threads 1
      done
    done
  else
    say "| compute-sanitizer | not here | | |"
  fi
  grep -h 'panicked at' -A 2 "$logs"/*.log | head -n 60 > "$logs/panics"
  if [ -s "$logs/panics" ]; then say "" '```' "$(cat "$logs/panics")" '```'; fi
}

benches() {
  say "" "## Benches"
  head_of_parts
  part benches "$limit" '^error' ./ferrograd-bench --device cuda --seconds 0.2 --limit 150 --json "$logs/bench.jsonl" \
    --markdown "$logs/bench.md" "$@"
  # Of a run that was stopped too there is a report: of what it had measured.
  grep -h '}$' "$logs/bench.jsonl" > "$out/bench.jsonl"
  ./ferrograd-bench --device cuda --from "$out/bench.jsonl" --markdown "$logs/bench.md" --svg "$out/roofline.svg"
  say "" "$(sed 's/^## /### /' "$logs/bench.md")"
  say "" "What was said on the way:" "" '```' "$(head -c 20000 "$logs/benches.log")" '```'
}

what=${1:-}
shift
case $what in
  tests | benches)
    say "" "# $what, $(date -u '+%F %T') UTC" "" \
      "$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>&1 | head -n 1)"
    "$what" "$@"
    ;;
  *) echo "bash run.sh tests | benches [GROUP…]" >&2; exit 2 ;;
esac
say "" "$what: $SECONDS s"
tar -czf "$out/logs-$what.tgz" -C "$here" --exclude=text.txt logs
exit $failed
