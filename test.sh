#!/usr/bin/env bash
# Malote's test command. CI runs `./test.sh`; `./test.sh --full` adds what takes longer.
#
# Promises: installs what is missing by package name where it may; starts throw-away servers on free ports (the tests do)
# and stops them; ends with a summary of steps, times and of what was skipped, by name.
# Never: reads stdin, needs a running database, touches anything outside the cache folder and the build folder.
#
#   MALOTE_CACHE       what survives between runs (default ~/.cache/malote)
#   MALOTE_TEST_DATA   real data for the tests (default ../shared/data); where it is missing, its tests are skipped and named
set -euo pipefail
cd "$(dirname "$0")"
exec </dev/null

full=no
for argument in "$@"; do
  case "$argument" in
    --full) full=yes ;;
    *) echo "usage: ./test.sh [--full]" >&2; exit 2 ;;
  esac
done

export MALOTE_CACHE="${MALOTE_CACHE:-$HOME/.cache/malote}"
cache="$MALOTE_CACHE"
mkdir -p "$cache"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"
export CARGO_INCREMENTAL="${CARGO_INCREMENTAL:-0}"
export MALOTE_TEST_DATA="${MALOTE_TEST_DATA:-../shared/data}"
if [ -d "$MALOTE_TEST_DATA" ]; then
  MALOTE_TEST_DATA="$(cd "$MALOTE_TEST_DATA" && pwd)"
fi

# --- steps -----------------------------------------------------------------------------------------------------------
summary=()
step() {
  local name="$1" from=$SECONDS
  shift
  echo "== $name"
  if "$@"; then
    summary+=("$(printf '%5ss  %s' $((SECONDS - from)) "$name")")
  else
    local code=$?
    summary+=("$(printf '%5ss  %s: FAILED (%s)' $((SECONDS - from)) "$name" "$code")")
    finish
    exit 1
  fi
}
finish() {
  echo "== summary"
  printf '%s\n' "${summary[@]}"
  if [ -n "${skipped:-}" ]; then
    echo "$(wc -l <<<"$skipped" | tr -d ' ') skipped: $(paste -sd' ' <<<"$skipped")"
  else
    echo "0 skipped"
  fi
}

# --- what must be there ----------------------------------------------------------------------------------------------
have() { command -v "$1" >/dev/null 2>&1; }
pg_bin() {
  if have pg_config && [ -x "$(pg_config --bindir)/initdb" ]; then return 0; fi
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}
missing_packages() {
  if ! have cc; then echo build-essential; fi
  if ! have curl; then echo curl; fi
  if ! pg_bin; then echo postgresql; fi
  if ! have tinyproxy; then echo tinyproxy-bin; fi
  if ! have python3 || ! python3 -c 'import venv, ensurepip' 2>/dev/null; then echo python3-venv; fi
}
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif have sudo; then sudo -n "$@"; else return 1; fi
}
install_missing() {
  local packages
  packages="$(missing_packages)"
  if [ -z "$packages" ]; then echo "nothing is missing"; return 0; fi
  if ! have apt-get; then
    echo "missing: $packages. Install them with this system's package manager." >&2
    return 1
  fi
  echo "installing: $(paste -sd' ' <<<"$packages")"
  as_root apt-get update -q
  # shellcheck disable=SC2086 # one word per package
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $packages
}
install_nextest() {
  export PATH="$cache/bin:$PATH"
  if ! have cargo; then
    echo "cargo is missing: install Rust 1.95 or later (https://rustup.rs)" >&2
    return 1
  fi
  if cargo nextest --version >/dev/null 2>&1; then echo "cargo-nextest is there"; return 0; fi
  cargo install cargo-nextest --locked --root "$cache" \
    || echo "cargo-nextest cannot be installed: cargo test runs the tests instead"
}
python_clients() {
  local wanted=crates/sim/tests/python/requirements.txt venv="$cache/venv"
  if [ ! -f "$wanted" ]; then echo "no Python clients"; return 0; fi
  if ! cmp -s "$wanted" "$venv/requirements.txt"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" "$venv/requirements.txt"
  fi
  "$venv/bin/python" --version
}

# --- tests -----------------------------------------------------------------------------------------------------------
# Tests that need the real data carry `real_input` in their names, those that mount a disk `small_tmpfs`; where it cannot
# be had they are left out by name.
left_out() {
  if [ ! -d "$MALOTE_TEST_DATA" ]; then echo real_input; fi
  local place
  place="$(mktemp -d)"
  if mount -t tmpfs tmpfs "$place" 2>/dev/null; then umount "$place"; else echo small_tmpfs; fi
  rmdir "$place"
}
run_tests() {
  local names
  names="$(left_out)"
  if cargo nextest --version >/dev/null 2>&1; then
    local filter=()
    if [ -n "$names" ]; then
      local tests
      # shellcheck disable=SC2086 # one word per name
      tests="$(printf ' + test(%s)' $names)"
      tests="${tests# + }"
      skipped="$(cargo nextest list --workspace --locked --message-format oneline -E "$tests" 2>/dev/null)"
      filter=(-E "not ($tests)")
    fi
    cargo nextest run --workspace --locked --profile "$profile" --no-fail-fast ${filter[@]+"${filter[@]}"}
  else
    local skip=() name
    for name in $names; do
      skipped+="$(cargo test --workspace --locked -- --list 2>/dev/null | sed -n "s/^\(.*$name.*\): test$/\1/p")"$'\n'
      skip+=(--skip "$name")
    done
    skipped="${skipped%$'\n'}"
    cargo test --workspace --locked --no-fail-fast -- --test-threads 2 ${skip[@]+"${skip[@]}"}
  fi
}
# The same tests of services and stores, over the other engine.
run_store_tests() {
  local -x MALOTE_TEST_STORE=postgres
  if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --locked --profile "$profile" --no-fail-fast -E "$store_tests"
  else
    cargo test --workspace --locked --lib --no-fail-fast -- --test-threads 2 service:: store::
  fi
}
run_demo() { "$CARGO_TARGET_DIR/$1/malote" demo "${@:2}"; }

profile=ci
store_tests='package(server) and test(/^(service|store)::/)'
skipped=
if [ "$full" = yes ]; then
  profile=full
  export PROPTEST_CASES="${PROPTEST_CASES:-1024}"
  export MALOTE_KILL_ROUNDS="${MALOTE_KILL_ROUNDS:-30}"
  export MALOTE_WORLD_SEEDS="${MALOTE_WORLD_SEEDS:-500}"
  export MALOTE_TEST_FULL=1
fi

step "what must be there" install_missing
step "test runner" install_nextest
step "format" cargo fmt --all --check
step "lints" cargo clippy --workspace --all-targets --locked -- -D warnings
# One feature set with lints and tests, or the dependencies are built once more.
step "build" cargo build --locked --workspace --bins
step "python clients" python_clients
step "tests" run_tests
step "tests of the store on PostgreSQL" run_store_tests
step "demo" run_demo debug
if [ "$full" = yes ]; then
  step "release build" cargo build --release --locked -p malote
  step "release demo" run_demo release
  step "release demo, a million rows" run_demo release --rows 1000000 --seed 2
fi
finish
