# shellcheck shell=bash
# What the backup scripts of this folder share: the logs that longshore-agent reads, written so that a kill at any point,
# a full disk or a failing tool never announces half a backup, and never loses the place in a chain.
#
# One run: `backup_begin` takes the lock, puts right what a killed run left, and decides between full and increment. The
# script then makes the backup at "$partial". `backup_announce` syncs it, gives it its final name, writes the logs and
# forgets old chains. The commit point is the one rename that replaces back_log: before it nothing was announced and the
# next run takes everything back; after it the next run only finishes the bookkeeping.
#
# Given by longshore-agent: LONGSHORE_SERVER_ID, _TYPE, _INSTANCE, _BACK_DIR, _BACK_LOG, _LAST_ALL_LOG (may be missing: then
# every backup is a full). Set by you, for instance in the crontab or in front of the script in the agent's configuration:
#   INCREMENTS_PER_FULL=6   increments after each full
#   FULL=yes                this run makes a full
#   KEEP_CHAINS=2           backups (a full with its increments) kept on this host, the newest included; the storage nodes
#                           must have fetched a backup before this many newer ones exist
#   COMPRESS=zstd|gzip|none default: zstd where it is installed, otherwise gzip
#
# Exit status: 0 when the log says ok; not 0 when it says wrong (the tool's own messages are in the log and on stderr). The
# logs are left alone, and the status is not 0, when called wrongly (64), when another run of the same instance is still at
# work (75), and when back_dir is missing or can't be written.
#
# Everything lives in back_dir: finished backups as TYPE-INSTANCE.STAMP.ENDING, or TYPE-INSTANCE.STAMP.NUMBER-KIND.ENDING where
# there are increments: all of a chain have the STAMP (UTC) of its full. And .longshore/TYPE-INSTANCE/ with the lock, the
# unfinished file and the chain's state.

set -Eeuo pipefail
export LC_ALL=C PATH="${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
umask 027 # the rsync daemon reads as back_dir's group

committed=''
failure=''

# Ends the run; the text goes into back_log.
fail() {
    failure=$*
    exit 1
}

# Says it on stderr, where the agent keeps it, without failing.
note() { printf '%s\n' "$*" >&2; }

need_tool() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || fail "the program $tool is not installed (looked in $PATH)"
    done
}

# backup_begin chain|plain ENDING: sets kind (full or increment), partial, next (a folder for what the next increment needs),
# state (whose current/ holds what the last run put there), and from (where an increment must start).
backup_begin() {
    local variable
    for variable in LONGSHORE_TYPE LONGSHORE_INSTANCE LONGSHORE_BACK_DIR LONGSHORE_BACK_LOG; do
        if [[ -z ${!variable:-} ]]; then
            note "$variable is not set. longshore-agent sets it; by hand:" \
                "LONGSHORE_TYPE=... LONGSHORE_INSTANCE=... LONGSHORE_BACK_DIR=... LONGSHORE_BACK_LOG=... $0"
            exit 64
        fi
    done
    back_dir=$(realpath -m -- "$LONGSHORE_BACK_DIR")
    back_log=$(realpath -m -- "$LONGSHORE_BACK_LOG")
    last_all_log=''
    [[ -z ${LONGSHORE_LAST_ALL_LOG:-} ]] || last_all_log=$(realpath -m -- "$LONGSHORE_LAST_ALL_LOG")
    prefix=$LONGSHORE_TYPE-$LONGSHORE_INSTANCE
    style=$1
    ending=$2
    case $prefix in
    */* | .* | *[[:cntrl:]]*)
        note "LONGSHORE_TYPE and LONGSHORE_INSTANCE must be plain names, not $prefix"
        exit 64
        ;;
    esac
    state=$back_dir/.longshore/$prefix

    # Until the state is put right the logs are left alone: back_log is how put_right knows what was announced.
    if [[ ! -d $back_dir ]]; then
        note "$back_dir does not exist (is its disk mounted?)"
        exit 1
    fi
    (umask 077 && mkdir -p "$state")
    # A tool that outlived a killed script holds the lock too, so that it is not joined by a second one.
    exec 9>"$state/lock"
    if ! flock -n 9; then
        note "another backup of $prefix is at work (it holds $state/lock); this run does nothing"
        exit 75
    fi
    put_right

    exec 3>&2
    # The tools' messages, in a file without a name, so that a kill leaves none behind; not in back_dir, which may be full.
    messages=$(mktemp "${TMPDIR:-/tmp}/longshore-backup.XXXXXX")
    exec 2>"$messages"
    exec 4<"$messages"
    rm -f "$messages"
    messages=/proc/$$/fd/4
    trap backup_end EXIT
    trap 'failure="ended by a signal"; exit 143' TERM
    trap 'failure="ended by a signal"; exit 130' INT HUP
    next=$state/next.unfinished
    rm -rf "$state/partial" "$next"
    mkdir "$state/partial" "$next"
    decide_kind
}

# Finishes or takes back what a run left that was killed inside backup_announce.
put_right() {
    [[ -d $state/next ]] || return 0
    local name
    name=$(<"$state/next/name")
    if [[ $(log_line 1 "$back_log") == ok && $(log_line 2 "$back_log") == "$name" ]]; then
        note "a run before was killed after it announced $name; going on from it"
        adopt_state
    else
        note "a run before was killed before it announced $name; removing that"
        rm -rf "${back_dir:?}/${name:?}"
        # last_all_log may name the full that was just removed already.
        [[ $(<"$state/next/number") != 0 ]] || rm -rf "$state/current"
        rm -rf "$state/next"
    fi
}

adopt_state() {
    rm -rf "$state/current" && mv "$state/next" "$state/current" && rm -f "$state/failures"
}

# log_line NUMBER FILE: without the carriage return or blanks around; empty when there is none.
log_line() {
    if [[ -f $2 ]]; then
        sed -n "$1{s/^[[:space:]]*//;s/[[:space:]]*\$//;p;q;}" "$2"
    fi
}

decide_kind() {
    local current=$state/current failures=0
    [[ ! -f $state/failures ]] || failures=$(<"$state/failures")
    if [[ $style == plain || -z $last_all_log ]]; then
        make_full ''
    elif [[ ${FULL:-no} == yes ]]; then
        make_full 'it was asked for'
    elif [[ ! -d $current ]]; then
        make_full 'there is none yet'
    elif [[ $(log_line 2 "$last_all_log") != "$(<"$current/full")" ]]; then
        make_full "$last_all_log does not name the last full, $(<"$current/full")"
    elif (($(<"$current/number") >= ${INCREMENTS_PER_FULL:-6})); then
        make_full "$(<"$current/number") increments have been made"
    elif ((failures >= 2)); then
        make_full "$failures runs have failed since the last increment"
    else
        kind=increment
        number=$(($(<"$current/number") + 1))
        stamp=$(<"$current/stamp")
        full=$(<"$current/full")
        from=$(<"$current/to")
        to=''
        name=$prefix.$stamp.$(printf %03d "$number")-increment$ending
        partial=$state/partial/$name
    fi
}

# make_full WHY: also for a script that finds that it can't make an increment.
make_full() {
    local second
    kind=full
    number=0
    from=''
    to=''
    second=$(date +%s)
    while
        stamp=$(date -u -d "@$second" +%Y%m%d-%H%M%S)
        compgen -G "$back_dir/$prefix.$stamp*" >/dev/null
    do
        second=$((second + 1))
    done
    name=$prefix.$stamp$ending
    [[ $style == plain ]] || name=$prefix.$stamp.000-full$ending
    full=$name
    partial=$state/partial/$name
    [[ -z $1 ]] || note "making a full: $1"
}

# Publishes what is at "$partial". The script has set the positions: whoever checks the chain compares them for equality,
# `from` of an increment with `to` of the one before.
backup_announce() {
    local lines=(ok "$name") final=$back_dir/$name
    [[ -e $partial ]] || fail "the backup tool ended well but left nothing at $partial"
    if [[ -f $partial && ! -s $partial ]]; then fail "the backup tool ended well but its file is empty"; fi
    [[ -z $from ]] || lines+=("from: $from")
    [[ -z $to ]] || lines+=("to: $to")
    find "$partial" -print0 | xargs -0 -r sync

    printf '%s' "$name" >"$next/name"
    printf '%s' "$full" >"$next/full"
    printf '%s' "$stamp" >"$next/stamp"
    printf '%s' "$number" >"$next/number"
    printf '%s' "$to" >"$next/to"
    find "$next" -print0 | xargs -0 -r sync
    mv -T "$next" "$state/next"
    mv -T "$partial" "$final"
    sync "$state" "$back_dir"
    if [[ $kind == full && -n $last_all_log ]]; then
        write_log "$last_all_log" ok "$name"
    fi
    write_log "$back_log" "${lines[@]}"

    committed=yes # from here on nothing may turn the run into a failure
    adopt_state || note "could not update $state; the next run does it"
    forget_old_chains || note "could not remove every old backup below $back_dir"
}

write_log() {
    local log=$1
    shift
    printf '%s\n' "$@" >"$log.tmp" && sync "$log.tmp" && mv -fT "$log.tmp" "$log" && sync "$(dirname "$log")"
}

# Keeps the current chain and the newest others, KEEP_CHAINS in all. Names that this script does not make are left alone.
forget_old_chains() {
    local path base other kept=1 status=0
    local -A paths=()
    for path in "$back_dir/$prefix".*; do
        base=${path##*/}
        base=${base#"$prefix".}
        [[ $base =~ ^([0-9]{8}-[0-9]{6})(\.|$) ]] || continue
        paths[${BASH_REMATCH[1]}]=1
    done
    for other in $(printf '%s\n' "${!paths[@]}" | sort -r); do
        [[ $other != "$stamp" ]] || continue
        kept=$((kept + 1))
        if ((kept > ${KEEP_CHAINS:-2})); then
            rm -rf "$back_dir/$prefix.$other" "$back_dir/$prefix.$other".* || status=1
        fi
    done
    return "$status"
}

# Runs at every end of the script.
backup_end() {
    local status=$?
    trap - EXIT
    trap '' TERM INT HUP
    set +e
    exec 2>&3
    cat "$messages" >&2
    rm -rf "$state/partial" "$state/next.unfinished" # first of all: it may be what filled the disk
    if [[ -n $committed ]]; then
        exit 0
    fi
    ((status != 0)) || status=1
    if [[ -z $failure ]]; then
        failure=$(tail -c 6000 "$messages" | tail -n 40)
    elif [[ -s $messages ]]; then
        failure+=$'\n'$(tail -c 4000 "$messages" | tail -n 20)
    fi
    note "${failure:-the backup ended with status $status and said nothing}"
    echo $(($(cat "$state/failures" 2>/dev/null || echo 0) + 1)) >"$state/failures"
    write_log "$back_log" wrong "${failure:-the backup ended with status $status and said nothing}" ||
        note "could not write $back_log"
    exit "$status"
}

# compressed_ending and compress belong together: what the second writes is named by the first.
compressed_ending() {
    case $(compressor) in
    zstd) echo .zst ;;
    gzip) echo .gz ;;
    none) ;;
    esac
}

compress() {
    case $(compressor) in
    zstd) zstd -q -3 -T0 -c ;;
    gzip) gzip -c -3 ;;
    none) cat ;;
    esac
}

compressor() {
    case ${COMPRESS:-} in
    zstd | gzip | none) echo "$COMPRESS" ;;
    '') if command -v zstd >/dev/null; then echo zstd; else echo gzip; fi ;;
    *) note "COMPRESS=$COMPRESS is none of zstd, gzip, none; using gzip" && echo gzip ;;
    esac
}
