# shellcheck shell=bash
# The services of deploy/quickstart: started in the background with a file run/NAME.pid that holds process id, start time and
# boot id, so that only the very process that was started is ever ended; each logs to log/NAME.log.
# Set by quickstart: root, dir, run, log, config, host, restored, programs, with_mariadb, with_elasticsearch.
# shellcheck disable=SC2154

server_id=quickstart-host

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

stop_with() {
    local status=$1
    shift
    printf 'quickstart: %s\n' "$*" >&2
    exit "$status"
}

# wait_for WHAT SECONDS COMMAND...: looks every 50 ms.
wait_for() {
    local what=$1 until=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= until)); then
            printf 'quickstart: waited in vain for %s\n' "$what" >&2
            return 1
        fi
        sleep 0.05
    done
}

# Debian packages that are missing. Their own services are kept from starting: this starts its own.
install_missing() {
    local missing=() guard=/usr/sbin/policy-rc.d made=no status=0
    command -v redis-server >/dev/null || missing+=(redis-server)
    command -v rsync >/dev/null || missing+=(rsync)
    if [[ $with_mariadb == yes ]]; then
        command -v mariadbd >/dev/null || [[ -x /usr/sbin/mariadbd ]] || missing+=(mariadb-server)
        command -v mariadb-backup >/dev/null || missing+=(mariadb-backup)
    fi
    ((${#missing[@]} > 0)) || return 0
    if ((EUID != 0)); then stop_with 69 "these are missing; run: sudo apt-get install ${missing[*]}"; fi
    say "installing ${missing[*]}"
    if [[ ! -e $guard ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$guard"
        chmod +x "$guard"
        made=yes
    fi
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" || status=$?
    if [[ $made == yes ]]; then rm -f "$guard"; fi
    ((status == 0)) || stop_with 69 "apt-get could not install ${missing[*]}"
}

# A port of 127.0.0.1 on which nothing listens, below those that the kernel gives to outgoing connections.
free_port() {
    local port
    while
        port=$((20000 + RANDOM % 12000))
        (exec 7<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null
    do :; done
    echo "$port"
}

# start_time PID: in ticks since the machine's start; empty when there is no such process.
start_time() {
    local stat
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 0
    stat=${stat##*) }
    cut -d' ' -f20 <<<"$stat"
}

# running NAME: sets pid; false when the process that was started under that name is no more.
running() {
    local started boot
    [[ -f $run/$1.pid ]] || return 1
    read -r pid started boot <"$run/$1.pid" || return 1
    [[ $boot == "$(</proc/sys/kernel/random/boot_id)" && -n $started && $(start_time "$pid") == "$started" ]] || return 1
    [[ $(awk '{ sub(/.*\) /, ""); print $1 }' "/proc/$pid/stat" 2>/dev/null) != Z ]]
}

# start NAME COMMAND...: in a session of its own, so that closing the terminal leaves it running.
start() {
    local name=$1
    shift
    setsid "$@" >"$log/$name.log" 2>&1 </dev/null 8>&- &
    printf '%s %s %s\n' "$!" "$(start_time "$!")" "$(</proc/sys/kernel/random/boot_id)" >"$run/$name.pid"
    printf '%s\n' "$name" >>"$run/order"
}

# ready NAME COMMAND...: waits until COMMAND holds; when it doesn't, or the service ends, says which log to read.
ready() {
    local name=$1 until=$((SECONDS + 120))
    shift
    until "$@" >/dev/null 2>&1; do
        if ! running "$name"; then
            tail -n 15 "$log/$name.log" >&2
            stop_with 69 "$name ended instead of starting; the end of $log/$name.log is above"
        fi
        ((SECONDS < until)) || stop_with 69 "$name does not answer; read $log/$name.log"
        sleep 0.05
    done
}

# http_ok PORT PATH: whether it answers 200.
http_ok() {
    local status
    exec 7<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' "$2" >&7
    read -r -t 5 _ status _ <&7 || status=''
    exec 7>&-
    [[ $status == 200 ]]
}

# stop_all [quietly]: in the opposite order of their start. TERM, and KILL for the group of what does not end.
stop_all() {
    local name names=() until
    if [[ -f $run/order ]]; then mapfile -t names < <(tac "$run/order" | awk '!seen[$0]++'); fi
    for name in "${names[@]}"; do
        if running "$name"; then
            [[ -n ${1:-} ]] || say "stopping $name (process $pid)"
            kill -TERM "$pid" 2>/dev/null || true
            until=$((SECONDS + 20))
            while running "$name"; do
                if ((SECONDS >= until)); then kill -KILL -- "-$pid" 2>/dev/null || true; fi
                sleep 0.05
            done
        fi
        rm -f "$run/$name.pid"
    done
    if [[ -f $run/elsewhere ]]; then rm -rf -- "$(<"$run/elsewhere")"; fi
    rm -f "$run/order" "$run/elsewhere"
    if ((${#names[@]} == 0)) && [[ -z ${1:-} ]]; then say "nothing of $dir is running"; fi
}

show_status() {
    local name away=0
    if [[ ! -f $run/order ]]; then
        say "nothing of $dir is running"
        return 1
    fi
    while read -r name; do
        if running "$name"; then
            printf '%-14s runs, process %-8s %s\n' "$name" "$pid" "$log/$name.log"
        else
            printf '%-14s is away           %s\n' "$name" "$log/$name.log"
            away=1
        fi
    done <"$run/order"
    return "$away"
}

start_redis() {
    redis_port=$(free_port)
    cat >"$config/redis.conf" <<END
bind 127.0.0.1
port $redis_port
dir $dir/redis
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
# A backup of it begins at once, instead of 5 s later.
repl-diskless-sync-delay 0
daemonize no
END
    start redis redis-server "$config/redis.conf"
    ready redis sh -c "redis-cli -p $redis_port ping | grep -q PONG"
}

start_rsyncd() {
    local identity=''
    rsync_port=$(free_port)
    # Started by root it would become nobody, who can't read what the scripts keep to their group.
    if ((EUID == 0)); then identity=$'uid = 0\ngid = 0'; fi
    cat >"$config/rsyncd.conf" <<END
use chroot = no
$identity
read only = yes
hosts allow = 127.0.0.1
socket options = TCP_NODELAY
[backup]
path = $host/backup
exclude = .longshore/
END
    start rsyncd rsync --daemon --no-detach --address=127.0.0.1 "--port=$rsync_port" "--config=$config/rsyncd.conf"
    ready rsyncd rsync "rsync://127.0.0.1:$rsync_port/"
}

start_elasticsearch() {
    local home place=$dir/elasticsearch transport_port as=()
    say "obtaining Elasticsearch (once)"
    home=$("$root/tests/elasticsearch-install") || stop_with 69 "tests/elasticsearch-install could not obtain Elasticsearch"
    elasticsearch_port=$(free_port)
    transport_port=$(free_port)
    if ((EUID == 0)); then
        # It refuses to run as root, and its user must be able to enter its folder.
        as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
        if ! "${as[@]}" test -x "$dir"; then
            place=$(mktemp -d /tmp/longshore-quickstart.XXXXXX)
            printf '%s' "$place" >"$run/elsewhere"
            say "Elasticsearch's user can't enter $dir; it is kept in $place until stop"
        fi
    fi
    mkdir -p "$place/config/jvm.options.d" "$place/data" "$place/logs" "$place/tmp"
    cp "$home/config/jvm.options" "$home/config/log4j2.properties" "$place/config/"
    cat >"$place/config/elasticsearch.yml" <<END
cluster.name: longshore-quickstart
discovery.type: single-node
http.host: 127.0.0.1
http.port: $elasticsearch_port
transport.host: 127.0.0.1
transport.port: $transport_port
path.data: $place/data
path.logs: $place/logs
xpack.security.enabled: false
cluster.routing.allocation.disk.threshold_enabled: false
END
    if ((EUID == 0)); then chown -R 65534:65534 "$place"; fi
    # Not waited for here: it takes some seconds, in which the rest starts and the first backups are made. Compiling its
    # code less thoroughly makes them fewer.
    (
        cd "$place"
        start elasticsearch "${as[@]}" env "ES_PATH_CONF=$place/config" "ES_TMPDIR=$place/tmp" "HOME=$place" \
            "ES_JAVA_HOME=${JAVA_HOME:-$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")}" \
            "ES_JAVA_OPTS=-Xms512m -Xmx512m -XX:TieredStopAtLevel=1" "$home/bin/elasticsearch"
    )
}

start_mariadb() {
    local place=$dir/mariadb as=()
    export PATH=$PATH:/usr/sbin
    if ((EUID == 0)); then as=(--user=root); fi
    if [[ ! -d $place/data/mysql ]]; then
        rm -rf "$place"
        mkdir -p "$place"
        mariadb-install-db --no-defaults --auth-root-authentication-method=normal --skip-test-db \
            --datadir="$place/data" "${as[@]}" >"$log/mariadb-install.log" 2>&1 ||
            stop_with 69 "mariadb-install-db failed; read $log/mariadb-install.log"
    fi
    start mariadb mariadbd --no-defaults "${as[@]}" --datadir="$place/data" --socket="$place/socket" \
        --skip-networking --pid-file="$place/pid" --innodb-buffer-pool-size=32M --innodb-log-file-size=16M
    printf '[client]\nuser=root\nsocket=%s\n[mariadb-backup]\ndatadir=%s\n' "$place/socket" "$place/data" >"$config/mariadb.cnf"
    ready mariadb sql "$place/socket" 'select 1'
    mkdir -p "$host/backup/shop"
}

# sql SOCKET STATEMENTS
sql() { mariadb --no-defaults --user=root --socket="$1" --batch --skip-column-names --execute "$2"; }

fill_mariadb() {
    sql "$dir/mariadb/socket" "create database if not exists shop; use shop;
        create table if not exists orders (id int primary key auto_increment, round int, text varchar(2000));
        insert into orders (round, text) select $1, repeat(md5(rand()), 40) from seq_1_to_3000"
}

restore_mariadb() {
    local expected found data=$restored/mariadb as=()
    say "restoring MariaDB's chain into an empty server"
    rm -rf "$data" "$data.fetched"
    if ((EUID == 0)); then as=(--user=root); fi
    expected=$(sql "$dir/mariadb/socket" 'checksum table shop.orders extended')
    RESTORE_TARGET=$data longshore restore run "$server_id/mysql/shop" --to "$data.fetched" \
        --script "$root/deploy/scripts/mysql-restore"
    start mariadb-restored mariadbd --no-defaults "${as[@]}" --datadir="$data" --socket="$data/socket" --skip-networking \
        --pid-file="$data/pid" --innodb-buffer-pool-size=32M
    ready mariadb-restored sql "$data/socket" 'select 1'
    found=$(sql "$data/socket" 'checksum table shop.orders extended')
    [[ $found == "$expected" ]] || stop_with 1 "the restored table's checksum is $found, not $expected"
    say "the restored table's checksum equals the original's: $found"
}

write_configurations() {
    local node catalog weight
    dashboard_port=$(free_port)
    catalog="[catalog]
kind = \"sqlite\"
path = \"$dir/indexer/catalog.db\""
    if [[ $with_elasticsearch == yes ]]; then
        catalog="[catalog]
kind = \"elasticsearch\"
[catalog.elasticsearch]
urls = [\"http://127.0.0.1:$elasticsearch_port\"]
replicas = 0"
    fi

    cat >"$config/agent.toml" <<END
server_id = "$server_id"
business_id = "quickstart"
address = "127.0.0.1"
queue = "level1"
state_dir = "$host/agent"
stagger = "0s"
[redis]
address = "127.0.0.1:$redis_port"
[rsyncd]
port = $rsync_port
END
    agent_section redis redis queue "'$root/deploy/scripts/redis-backup' '$config/redis.conf'"
    agent_section site folder site "'$root/deploy/scripts/folder-backup' '$host/site'" chain
    if [[ $with_mariadb == yes ]]; then
        agent_section shop mysql shop "'$root/deploy/scripts/mysql-backup' '--defaults-file=$config/mariadb.cnf'" chain
    fi

    weight=100
    for node in 1 2; do
        puller_status_port[node]=$(free_port)
        cat >"$config/puller-$node.toml" <<END
node_id = "node-$node"
queues = ["level1", "level2"]
weight = $weight
[redis]
address = "127.0.0.1:$redis_port"
[store]
path = "$dir/node-$node"
reserve = "200MiB"
[serve]
listen = "127.0.0.1:$(free_port)"
public_key_file = "$dir/dashboard/restore.pub"
[status]
listen = "127.0.0.1:${puller_status_port[node]}"
END
        weight=50
    done

    indexer_status_port=$(free_port)
    cat >"$config/indexer.toml" <<END
[redis]
address = "127.0.0.1:$redis_port"
[status]
listen = "127.0.0.1:$indexer_status_port"
$catalog
END
    cat >"$config/dashboard.toml" <<END
listen = "127.0.0.1:$dashboard_port"
data_dir = "$dir/dashboard"
queues = ["level1", "level2"]
[redis]
address = "127.0.0.1:$redis_port"
$catalog
END
}

# agent_section NAME TYPE INSTANCE SCRIPT [chain]
agent_section() {
    cat >>"$config/agent.toml" <<END
[instance.$1]
type = "$2"
instance = "$3"
script = """$4"""
back_dir = "$host/backup/$1"
back_log = "$host/$1.log"
rsync_module = "backup/$1"
END
    if [[ -n ${5:-} ]]; then printf 'last_all_log = "%s"\n' "$host/$1.full.log" >>"$config/agent.toml"; fi
}

start_longshore() {
    local node
    start indexer "$programs/longshore-indexer" run -c "$config/indexer.toml"
    start dashboard "$programs/longshore-dashboard" run -c "$config/dashboard.toml"
    ready dashboard http_ok "$dashboard_port" /healthz
    for node in 1 2; do
        start "puller-$node" "$programs/longshore-puller" run -c "$config/puller-$node.toml"
    done
    for node in 1 2; do
        ready "puller-$node" http_ok "${puller_status_port[node]}" /healthz
    done
}

# The indexer waits for its catalog, and the reports wait for the indexer.
catalog_ready() {
    if [[ $with_elasticsearch == yes ]]; then ready elasticsearch http_ok "$elasticsearch_port" /_cluster/health; fi
    ready indexer http_ok "$indexer_status_port" /healthz
}

agent() {
    "$programs/longshore-agent" "$@" -c "$config/agent.toml" --log-format plain 2>>"$log/agent.log" ||
        stop_with 1 "longshore-agent $* ended with $?; read $log/agent.log"
}

longshore() {
    LONGSHORE_SERVER=http://127.0.0.1:$dashboard_port LONGSHORE_TOKEN=$(<"$dir/dashboard/token") "$programs/longshore" "$@"
}

# stored_since MILLISECONDS: how many stored backups the catalog has that were made since.
stored_since() {
    local body
    exec 7<>"/dev/tcp/127.0.0.1/$dashboard_port" || return 1
    printf 'GET /api/v1/statistics?outcome=stored&made_from=%s HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n\r\n' \
        "$1" "$(<"$dir/dashboard/token")" >&7
    body=$(cat <&7)
    exec 7>&-
    # The last count is that of all together.
    body=${body##*\"count\":}
    [[ ${body%%,*} =~ ^[0-9]+$ ]] && echo "${body%%,*}"
}

# all_stored MILLISECONDS COUNT
all_stored() { (($(stored_since "$1") >= $2)); }
