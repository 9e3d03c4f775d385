#!/usr/bin/env bash
# Fetch BIRD (step 2) into data/train or data/dev, in the layout that every step reads:
#   bash data/download_bird.sh          training set: 8.9 GB to download, 33 GB unpacked, 54 GB of room on the way
#   bash data/download_bird.sh --dev    dev set: 0.35 GB to download
# BIRD_URL names the archive elsewhere (a mirror, or file:///…/train.zip).  Interrupted downloads resume, also one that
# was begun by hand in data/train.zip; a set that is there is skipped.  The archive is deleted when it is unpacked.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

HOST=https://bird-bench.oss-cn-beijing.aliyuncs.com # where bird-bench.github.io links to
ROOM=6 # bytes for each byte of the archive: itself, the archive of databases in it, the databases

fail() { # exit code, message
    echo "error: $2" >&2
    exit "$1"
}

size_of() { stat -c %s "$1" 2>/dev/null || echo 0; }
gigabytes() { awk -v bytes="$1" 'BEGIN { printf "%.1f GB", bytes / 1e9 }'; }
is_whole() { python3 -c 'import sys, zipfile; sys.exit(not zipfile.is_zipfile(sys.argv[1]))' "$1"; } # its end is there

check_room() { # url, archive
    local length free
    length=$(curl --silent --head --location --max-time 60 "$1" | tr -d '\r' | awk 'tolower($1) == "content-length:" { n = $2 } END { print n }') || true
    [ -n "$length" ] || return 0 # not told, or no answer, which the download will tell better
    free=$(($(df --output=avail -B1 data | tail -n 1) + $(size_of "$2")))
    echo "$1: $(gigabytes "$length"), $(gigabytes $((ROOM * length))) of room needed until it is unpacked, $(gigabytes "$free") free"
    [ "$free" -ge $((ROOM * length)) ] || fail 2 "data/: too little room for $1; make room, or link data/ to a larger disk"
}

download() { # url, archive: goes on as long as bytes come, because long transfers are cut off now and then
    local before=-1
    until is_whole "$2"; do
        [ "$(size_of "$2")" -gt "$before" ] ||
            fail 1 "$1: stopped after $(size_of "$2") bytes of $2; check the network, or name a mirror with BIRD_URL; the same command resumes (delete $2 to begin anew)"
        before=$(size_of "$2")
        curl --fail --location --continue-at - --connect-timeout 30 --speed-limit 1024 --speed-time 60 --progress-bar \
            --output "$2" "$1" || true
    done
}

unpack() { # archive, train or dev
    python3 - "$@" <<'PY'
import json
import os
import shutil
import sys
import zipfile
import zlib
from pathlib import Path

archive, split = Path(sys.argv[1]), sys.argv[2]
folder, work = Path("data", split), Path("data", f".{split}")


def refuse(message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def files(opened):
    return [file for file in opened.infolist() if not file.is_dir() and not file.filename.startswith("__MACOSX/")]


def unpack_into(work):
    """What the archive holds, without its top folder, and the databases of the archive in it."""
    with zipfile.ZipFile(archive) as opened:
        for file in files(opened):
            with opened.open(file) as source, (work / Path(file.filename).name).open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    inner = work / f"{split}_databases.zip"
    with zipfile.ZipFile(inner) as opened:
        opened.extractall(work, files(opened))
    inner.unlink()


def missing_databases(work):
    """The databases that there are questions on, but no file of; refuses when there is no file at all."""
    names = {row["db_id"] for row in json.loads((work / f"{split}.json").read_text(encoding="utf-8"))}
    missing = {name for name in names if not (work / f"{split}_databases" / name / f"{name}.sqlite").is_file()}
    if missing == names:
        refuse(f"{archive}: no {split}_databases/NAME/NAME.sqlite in it; is it BIRD's {split} set?")
    return sorted(missing)


shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
work.mkdir()
try:
    unpack_into(work)
    missing = missing_databases(work)
    os.sync()
    work.replace(folder)
except (zipfile.BadZipFile, zlib.error, EOFError) as error:
    refuse(f"{archive}: damaged ({error}); delete it and run again")
except FileNotFoundError as error:
    refuse(f"{archive}: no {Path(error.filename).name} in it; is it BIRD's {split} set?")
except OSError as error:
    refuse(f"{folder}: cannot be written ({error.strerror}); make room and run again")
finally:
    shutil.rmtree(work, ignore_errors=True)
if missing:
    print(f"warning: {archive} holds no database {', '.join(missing)}; leave the questions on them out", file=sys.stderr)
PY
}

case "${1:-}" in
"") split=train ;;
--dev) split=dev ;;
-h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0" && exit ;;
*) fail 2 "unknown argument '$1'; see --help" ;;
esac
archive=data/$split.zip
url=${BIRD_URL:-$HOST/$split.zip}
if [ -f "data/$split/$split.json" ] && [ -d "data/$split/${split}_databases" ]; then
    echo "data/$split: complete"
    exit
fi
[ ! -e "data/$split" ] || [ -z "$(ls -A "data/$split")" ] ||
    fail 2 "data/$split: is there, without $split.json and ${split}_databases; move it away and run again"
command -v curl >/dev/null || fail 2 "curl: not found; install it and run again"

check_room "$url" "$archive"
download "$url" "$archive"
echo "unpacking $archive (minutes)"
unpack "$archive" "$split"
rm "$archive"
echo "data/$split: $split.json and ${split}_databases"
