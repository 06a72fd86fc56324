# shellcheck shell=bash
# What the restore scripts of this folder share. `longshore restore run INSTANCE --script X-restore` calls one with the
# fetched, verified files as arguments, in the order in which they apply: the full first, then each increment.
#
#   X-restore [--target PATH] [--owner USER[:GROUP]] [--force] FILE...
#   --target PATH   where to restore to; also RESTORE_TARGET in the environment. It must be missing or empty.
#   --owner ...     who shall own it; also RESTORE_OWNER. Default: the owner that the empty target has.
#   --force         (RESTORE_FORCE=yes) a target that is not empty is moved aside to PATH.before-TIME, never deleted
#
# Everything is made in a folder beside the target and put in place by one rename when it is complete: a restore that
# fails or is killed leaves the target as it was. Exit status: 0 restored; 64 called wrongly; 73 the target is in use.

set -Eeuo pipefail
export LC_ALL=C PATH="${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

note() { printf '%s\n' "$*" >&2; }

need_tool() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || fail "the program $tool is not installed (looked in $PATH)"
    done
}

usage() {
    sed -n '2,/^$/{s/^# \{0,1\}//;p;}' "$0"
    echo "  $(basename "$0") [--target PATH] [--owner USER[:GROUP]] [--force] FILE..."
    exit "$1"
}

# restore_arguments "$@": sets files, target, owner, force.
restore_arguments() {
    target=${RESTORE_TARGET:-}
    owner=${RESTORE_OWNER:-}
    force=${RESTORE_FORCE:-no}
    files=()
    while (($#)); do
        case $1 in
        --target | --owner)
            (($# > 1)) || usage 64 >&2
            if [[ $1 == --target ]]; then target=$2; else owner=$2; fi
            shift
            ;;
        --target=*) target=${1#*=} ;;
        --owner=*) owner=${1#*=} ;;
        --force) force=yes ;;
        -h | --help) usage 0 ;;
        -*)
            note "unknown option $1"
            usage 64 >&2
            ;;
        *) files+=("$(realpath -- "$1")") ;;
        esac
        shift
    done
    if ((${#files[@]} == 0)); then
        note "no backup file was given"
        usage 64 >&2
    fi
}

# only_one: for backups that are complete by themselves.
only_one() {
    ((${#files[@]} == 1)) || fail "each of these backups is complete: give one file, not ${#files[@]}"
}

# restore_begin: checks the target and makes "$stage", an empty folder on the target's file system.
restore_begin() {
    if [[ -z $target ]]; then
        note "where to? Give --target PATH or set RESTORE_TARGET"
        exit 64
    fi
    target=$(realpath -m -- "$target")
    in_use=''
    if [[ -d $target ]]; then
        [[ -z $(ls -A -- "$target") ]] || in_use=yes
    elif [[ -e $target ]]; then
        in_use=yes
    fi
    if [[ -n $in_use && $force != yes ]]; then
        note "$target is not empty. Give an empty or new place, or --force to move it aside first"
        exit 73
    fi
    if mountpoint -q -- "$target"; then
        if [[ -n $in_use ]]; then
            note "$target is a mount point and not empty: it can't be moved aside; empty it first"
            exit 73
        fi
        stage=$(mktemp -d "$target/.longshore-restore.XXXXXX")
    else
        mkdir -p -- "$(dirname "$target")"
        stage=$(mktemp -d "$target.longshore-restore.XXXXXX")
    fi
    trap 'rm -rf -- "$stage"' EXIT
    trap 'exit 143' TERM
    trap 'exit 130' INT HUP
}

# restore_publish PATH: the finished file or folder below "$stage" becomes the target.
restore_publish() {
    local ready=$1 before
    if [[ -z $owner && -d $target && $EUID -eq 0 ]]; then owner=$(stat -c %u:%g -- "$target"); fi
    if [[ -n $owner ]]; then chown -R -- "$owner" "$ready"; fi
    sync -f "$ready"
    if mountpoint -q -- "$target"; then
        find "$ready" -mindepth 1 -maxdepth 1 -exec mv -t "$target" -- {} +
        if [[ -n $owner ]]; then chown -- "$owner" "$target"; fi
    else
        if [[ -n $in_use ]]; then
            before=$target.before-$(date -u +%Y%m%d-%H%M%S)
            mv -T -- "$target" "$before"
            note "what was at $target is now at $before"
        fi
        mv -T -- "$ready" "$target"
    fi
    sync "$(dirname "$target")"
}

# decompress FILE: to stdout, by the ending of its name.
decompress() {
    case $1 in
    *.zst) zstd -q -d -c -- "$1" ;;
    *.gz) gzip -d -c -- "$1" ;;
    *) cat -- "$1" ;;
    esac
}
