#!/usr/bin/env bash
# generate.sh LANGUAGE FOLDER: builds the library for the tests of the bindings, and puts it and the code for LANGUAGE there.
# The build has a computer inside (feature test-host), so it is kept apart from the library that apps use.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
cd "$root"
cargo build --quiet --package pocketcard-ffi --features test-host,bindgen
case $(uname) in
    Darwin) library=libpocketcard_ffi.dylib ;;
    *) library=libpocketcard_ffi.so ;;
esac
cp "$target/debug/$library" "$2/"
"$target/debug/uniffi-bindgen" generate --library "$2/$library" --language "$1" --no-format --out-dir "$2" >/dev/null
