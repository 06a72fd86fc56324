#!/usr/bin/env python3
"""What UBackup's puller does, written anew: the reference of figure P11.

Each of `work_thread` threads, again and again: looks at the free space (below the reserve it sleeps 10 s); asks each queue in
order with RPOP, and sleeps 1 s on each that is empty; fetches what it got with `rsync -av` into
root/back_type/A.B.C/D/, up to `retry` times; compares the size; pushes the result to the message queue.

Usage: seed_puller.py REDIS_PORT RSYNC_PORT ROOT THREADS JOBS QUEUE...     ends when JOBS results were pushed
"""
import json
import os
import socket
import subprocess
import sys
import threading
import time

RESERVE_GIB = 1
RETRY = 3


class Redis:
    """RPOP and LPUSH over one connection."""

    def __init__(self, port):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = connection.makefile("rwb")

    def call(self, *words):
        words = [word if isinstance(word, bytes) else word.encode() for word in words]
        parts = [b"*%d\r\n" % len(words)] + [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
        self.stream.write(b"".join(parts))
        self.stream.flush()
        line = self.stream.readline()
        if line[:1] == b"$":
            size = int(line[1:])
            return None if size < 0 else self.stream.read(size + 2)[:-2]
        if line[:1] == b":":
            return int(line[1:])
        raise RuntimeError(line)


def fetch(job, rsync_port, root):
    """The reason why it failed, or None."""
    front, _, last = job["game_server_ip"].rpartition(".")
    folder = os.path.join(root, job["back_type"], front, last)
    os.makedirs(folder, exist_ok=True)
    source = "%s::%s/%s" % (job["game_server_ip"], job["rsync_model"], job["filename"])
    command = ["rsync", "-av", "--port=%d" % rsync_port, source, folder + "/"]
    for _ in range(RETRY):
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0:
            size = os.path.getsize(os.path.join(folder, job["filename"]))
            return None if size == job["size"] else "file size not correct"
    return "rsync failure"


def work(redis_port, rsync_port, root, jobs, queues):
    redis = Redis(redis_port)
    while redis.call("LLEN", "message") < jobs:
        free = os.statvfs(root)
        if free.f_bavail * free.f_frsize < RESERVE_GIB << 30:
            time.sleep(10)
            continue
        for queue in queues:
            message = redis.call("RPOP", queue)
            if message is None:
                time.sleep(1)
                continue
            job = json.loads(message)
            failure = fetch(job, rsync_port, root) if job["success"] else job["log"]
            job.update(succeed=0 if failure else 1, log=failure or "", rsync_time=int(time.time() * 1000))
            redis.call("LPUSH", "message", json.dumps(job))
            break


def main():
    redis_port, rsync_port, root, threads, jobs = sys.argv[1:6]
    arguments = (int(redis_port), int(rsync_port), root, int(jobs), sys.argv[6:])
    workers = [threading.Thread(target=work, args=arguments) for _ in range(int(threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


main()
