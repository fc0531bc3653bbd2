#!/usr/bin/env bash
# Tests of the Kotlin binding on a plain JVM: builds the library with a computer inside, generates its Kotlin, compiles and
# runs TestPhone.kt. The compiler comes from npm into the target folder (90 MB, once).
# Exit code 77 and a line "SKIPPED: reason" if that cannot be done here.
set -euo pipefail

version=2.4.20
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
mkdir -p "$target"
target=$(cd "$target" && pwd)

skip() {
    echo "SKIPPED: the Kotlin binding: $1"
    exit 77
}

command -v java >/dev/null || skip "no java: apt install default-jdk-headless"
jna=${POCKETCARD_JNA:-/usr/share/java/jna.jar}
[ -e "$jna" ] || skip "no $jna: apt install libjna-java"
compiler=$target/kotlin-compiler-$version
if [ ! -e "$compiler/package/bin/kotlinc" ]; then
    command -v npm >/dev/null || skip "no npm to fetch the compiler with: apt install npm"
    # Unpacked aside and renamed, so that an interrupted download leaves nothing behind that looks like a compiler.
    aside=$(mktemp -d "$target/kotlin-compiler.XXXXXX")
    if ! (cd "$aside" && npm pack --silent "kotlin-compiler@$version" >/dev/null); then
        rm -rf "$aside"
        skip "npm could not fetch kotlin-compiler@$version"
    fi
    tar -xzf "$aside"/kotlin-compiler-*.tgz -C "$aside"
    rm "$aside"/kotlin-compiler-*.tgz
    rm -rf "$compiler"
    mv "$aside" "$compiler"
fi
coroutines=$(find "$compiler/package/lib" -name 'kotlinx-coroutines-core-jvm.jar' -print -quit)
stdlib=$compiler/package/lib/kotlin-stdlib.jar

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
bash "$here/../generate.sh" kotlin "$folder"
bash "$compiler/package/bin/kotlinc" -nowarn -J-Xmx1g -classpath "$jna:$coroutines" -d "$folder/test.jar" \
    "$folder"/uniffi/pocketcard_ffi/pocketcard_ffi.kt "$here/TestPhone.kt"
timeout 300 java -Djna.library.path="$folder" -classpath "$folder/test.jar:$jna:$coroutines:$stdlib" TestPhoneKt "$@"
