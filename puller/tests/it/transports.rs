//! The ways to a host: daemon with and without a secret, old daemons, ssh, a local path.

use std::{fs, net::TcpStream, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use longshore_core::{Outcome, ReasonCode, Transport};
use longshore_tests::{Process, free_port, wait_until_blocking};

use crate::cluster::{Cluster, bytes, place};

#[tokio::test]
async fn a_module_with_a_secret_needs_it() {
    let secrets = tempfile::NamedTempFile::new().unwrap();
    fs::write(secrets.path(), "puller:hush\n").unwrap();
    fs::set_permissions(secrets.path(), fs::Permissions::from_mode(0o600)).unwrap();
    let module = format!("auth users = puller\nsecrets file = {}\n", secrets.path().display());
    let cluster = Cluster::start_with("", &module);
    let refused = cluster.offer_file("a", 100, 1).await;
    assert!(cluster.configure("1", "", "[rsync]\ngive_up_host = 0\nhost_rest = \"1ms\"").once().success());
    let report = cluster.report_of(&refused).await;
    assert_eq!(report.reason.unwrap().code, ReasonCode::AccessDenied);
    let password = cluster.folder.path().join("password");
    fs::write(&password, "hush\n").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let more = format!("[[rsync.secrets]]\nhost = \"127.0.0.1\"\nuser = \"puller\"\npassword_file = {password:?}");
    let config = cluster.configure("1", "", &more);
    let stored = cluster.offer_file("b", 100, 2).await;
    assert!(config.once().success());
    let report = cluster.report_of(&stored).await;
    assert_eq!(report.outcome, Outcome::Stored, "{:?}", report.reason);
}

#[tokio::test]
async fn a_daemon_that_refuses_the_digest_is_asked_without_and_verified_by_reading() {
    let cluster = Cluster::start_with("", "refuse options = checksum-choice\n");
    let good = cluster.offer_file("a", 100_000, 1).await;
    cluster.write("b", 100, 1);
    let bad = cluster.job("b");
    cluster.write("b", 100, 2);
    cluster.offer(&bad).await;
    let puller = cluster.puller("1");
    let report = cluster.report_of(&good).await;
    assert_eq!((report.outcome, report.attempts), (Outcome::Stored, 1), "{:?}", report.reason);
    assert_eq!(fs::read(place(&puller.store, &report).join("a")).unwrap(), bytes(100_000, 1));
    assert_eq!(cluster.report_of(&bad).await.reason.unwrap().code, ReasonCode::DigestDiffers);
}

#[tokio::test]
async fn a_path_of_the_node_is_fetched_below_its_configured_root_only() {
    let cluster = Cluster::start();
    cluster.write("db/a", 100_000, 1);
    let mut job = cluster.job("db/a");
    job.source.as_mut().unwrap().transport = Transport::Local;
    cluster.offer(&job).await;
    let mut other = cluster.job("db/a");
    other.source.as_mut().unwrap().transport = Transport::Local;
    other.source.as_mut().unwrap().module = "elsewhere".parse().unwrap();
    cluster.offer(&other).await;
    let more = format!("[local_modules]\nbackup = {:?}", cluster.source.path());
    let puller = cluster.configure("1", "retry = 1", &more).start(&[]);
    let report = cluster.report_of(&job).await;
    assert_eq!(report.outcome, Outcome::Stored, "{:?}", report.reason);
    assert_eq!(fs::read(place(&puller.store, &report).join("a")).unwrap(), bytes(100_000, 1));
    assert_eq!(cluster.report_of(&other).await.reason.unwrap().code, ReasonCode::NotConfigured);
}

#[tokio::test]
async fn over_a_remote_shell_no_word_of_the_job_is_read_by_a_shell() {
    let cluster = Cluster::start();
    let name = "a; touch owned $(touch owned) `touch owned`";
    cluster.write(name, 50_000, 1);
    let mut job = cluster.job(name);
    job.source.as_mut().unwrap().transport = Transport::Ssh;
    // Stands for ssh and the host's sshd: takes ssh's options and destination, then runs the command by a shell, at the login's
    // root, as sshd does.
    let root = cluster.folder.path().join("login");
    fs::create_dir(&root).unwrap();
    std::os::unix::fs::symlink(cluster.source.path(), root.join("backup")).unwrap();
    let shell = cluster.folder.path().join("ssh");
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {log}\nwhile [ $# -gt 0 ]; do case $1 in -o|-i|-p|-l) shift 2;; *) break;; esac; done\n\
         shift\ncd {root} && exec sh -c \"$*\"\n",
        log = cluster.folder.path().join("ssh.log").display(),
        root = root.display()
    );
    fs::write(&shell, script).unwrap();
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).unwrap();
    cluster.offer(&job).await;
    let more = format!("[ssh]\nprogram = {shell:?}\nuser = \"backup\"\nkey = \"/etc/longshore/key\"");
    let puller = cluster.configure("1", "retry = 1", &more).start(&[]);
    let report = cluster.report_of(&job).await;
    assert_eq!(report.outcome, Outcome::Stored, "{:?}", report.reason);
    assert_eq!(fs::read(place(&puller.store, &report).join(name)).unwrap(), bytes(50_000, 1));
    assert!(!root.join("owned").exists());
    let said = fs::read_to_string(cluster.folder.path().join("ssh.log")).unwrap();
    assert!(said.contains("StrictHostKeyChecking=yes") && !said.contains("touch"), "{said}");
}

/// A real sshd of this test's own, whose one key may do nothing but run what rsync asks for, below `root`.
fn sshd(folder: &Path, root: &Path, port: u16) -> Process {
    for name in ["host_key", "key"] {
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(name)).status();
        assert!(made.expect("ssh-keygen is installed (package openssh-client)").success());
    }
    let public = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let command = format!("cd {} && exec $SSH_ORIGINAL_COMMAND", root.display());
    fs::write(folder.join("authorized"), format!("restrict,command=\"{command}\" {}", public("key.pub"))).unwrap();
    fs::write(folder.join("known"), format!("[127.0.0.1]:{port} {}", public("host_key.pub"))).unwrap();
    let config = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {0}/host_key\nAuthorizedKeysFile {0}/authorized\nPidFile none\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n",
        folder.display()
    );
    fs::write(folder.join("sshd_config"), config).unwrap();
    // Only root needs it: the folder that sshd shuts its unprivileged part into.
    let _ = fs::create_dir_all("/run/sshd");
    let server =
        Process::spawn(Command::new("/usr/sbin/sshd").args(["-D", "-e", "-f"]).arg(folder.join("sshd_config")));
    let server = server.expect("sshd is installed (package openssh-server)");
    wait_until_blocking("sshd answers", Duration::from_secs(30), || TcpStream::connect(("127.0.0.1", port)).is_ok());
    server
}

#[tokio::test]
async fn an_ssh_that_can_not_log_in_is_its_hosts_failure_however_late_it_ends() {
    let cluster = Cluster::start();
    cluster.write("a", 100, 1);
    let mut job = cluster.job("a");
    job.source.as_mut().unwrap().transport = Transport::Ssh;
    cluster.offer(&job).await;
    // It closes its side first, and says why later than rsync asks.
    let ssh = cluster.folder.path().join("ssh");
    fs::write(&ssh, "#!/bin/sh\nexec 0<&- 1>&-\nsleep 0.3\nexit 255\n").unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let more = format!("[ssh]\nuser = \"backup\"\nprogram = {ssh:?}");
    assert!(cluster.configure("1", "retry = 1", &more).once().success());
    assert_eq!(cluster.reports().len(), 0, "no attempt is counted, and its host is waited for");
    let resting = cluster.queue.resting_hosts(10).await.unwrap();
    assert_eq!((resting.total, &resting.hosts[0].reason.code), (1, &ReasonCode::Unreachable));
}

#[tokio::test]
async fn a_real_ssh_server_is_fetched_from_with_a_key_and_only_if_it_is_the_known_one() {
    let cluster = Cluster::start();
    let (folder, port) = (cluster.folder.path(), free_port());
    let root = folder.join("login");
    fs::create_dir(&root).unwrap();
    std::os::unix::fs::symlink(cluster.source.path(), root.join("backup")).unwrap();
    let _server = sshd(folder, &root, port);
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let more = |known: &str| {
        let (user, key, known) = (user.trim(), folder.join("key"), folder.join(known));
        format!("[ssh]\nuser = {user:?}\nkey = {key:?}\nknown_hosts = {known:?}")
    };
    let offer = async |name: &str| {
        cluster.write(name, 3_000_000, 1);
        let mut job = cluster.job(name);
        let source = job.source.as_mut().unwrap();
        (source.transport, source.port) = (Transport::Ssh, Some(port));
        cluster.offer(&job).await;
        job
    };
    fs::write(folder.join("nobody"), "").unwrap();
    let refused = offer("not yet").await;
    assert!(
        cluster
            .configure("1", "", &format!("{}\n[rsync]\ngive_up_host = 0\nhost_rest = \"1ms\"", more("nobody")))
            .once()
            .success()
    );
    assert_eq!(cluster.report_of(&refused).await.outcome, Outcome::Failed, "a host that is not known is not believed");

    let stored = offer("a file with blanks").await;
    let config = cluster.configure("1", "retry = 1", &more("known"));
    assert!(config.once().success());
    let report = cluster.report_of(&stored).await;
    assert_eq!(report.outcome, Outcome::Stored, "{:?}", report.reason);
    assert_eq!(fs::read(place(&config.store, &report).join("a file with blanks")).unwrap(), bytes(3_000_000, 1));

    // Under a limit its ssh goes through the proxy, to the same known host.
    let limited = offer("under a limit").await;
    let config = cluster.configure("1", "retry = 1\nbandwidth = \"2MB/s\"", &more("known"));
    assert!(config.once().success());
    let report = cluster.report_of(&limited).await;
    assert_eq!(report.outcome, Outcome::Stored, "{:?}", report.reason);
    assert!(report.transfer.unwrap().seconds > 1.4, "{:?}", report.transfer);
    assert_eq!(fs::read(place(&config.store, &report).join("under a limit")).unwrap(), bytes(3_000_000, 1));
}
