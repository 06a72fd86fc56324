//! The command line of one fetch: pure, from a job's source and the node's settings.
//!
//! A host's words reach it only as types that were checked (address, module), and its path not at all: the path is written to
//! a file that `--files-from` names, so that no character of it is an option, a wildcard or a word of a shell. Options are
//! those of an untrusted sender: no links, devices, owners, attributes; nothing is ever deleted.
//!
//! `--inplace` is safe here, and only here: the target lies in the job's own folder below `.incoming`, nobody reads it before
//! it is verified, and a resume needs no second copy of the partial (which the node's reserve would have to hold).

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use longshore_core::{RelativePath, Source, Transport};

use crate::{
    bandwidth::relay::{RELAY, RELAY_PROXY},
    settings::{LocalModules, RsyncSettings, SshSettings},
};

/// A smaller file is here before anybody sees how far it is.
const SHOWS_PROGRESS: u64 = 1 << 20;
/// Seconds that a daemon has to accept a connection.
const CONNECT_SECONDS: u32 = 15;

/// How rsync's whole-file digest is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// xxh128, which is what agents announce. Daemons before 3.2 fail on it.
    Xxh128,
    /// Whatever both sides know; the digest is made by reading afterwards.
    Negotiated,
}

/// What lies at the paths that are fetched, and under which names it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One file, under its own name.
    File,
    /// One folder with everything below it, under its own name.
    Directory,
    /// Several files, each under its whole path below the module.
    Files,
}

/// One fetch.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// From where.
    pub source: &'a Source,
    /// What.
    pub shape: Shape,
    /// A larger file is not begun.
    pub largest_bytes: u64,
    /// Whether nothing of it is here yet. A partial would be thrown away by whole-file mode.
    pub fresh: bool,
    /// Which digest to ask for.
    pub checksum: Checksum,
    /// Begins each line about a file; not known to the host, so that it cannot forge one.
    pub marker: &'a str,
    /// The file that names the paths (see [`names`]).
    pub names: &'a Path,
    /// The folder that it goes into: absolute, without links.
    pub into: &'a Path,
    /// `USER:TOKEN@ADDRESS` of the proxy to go through.
    pub proxy: Option<&'a str>,
}

/// A program with its arguments and its whole environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// The rsync to run.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its environment; nothing else is inherited.
    pub environment: BTreeMap<&'static str, OsString>,
}

/// The node's configuration lacks what this source needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotConfigured {
    /// No `[ssh] user`.
    #[error("this node has no [ssh] user; fetching from {0} over ssh needs one")]
    Ssh(String),
    /// No such local root.
    #[error("this node has no [local_modules] {0}")]
    LocalModule(String),
}

/// The content of the file that `--files-from` reads: the paths below the module, each ended by NUL.
pub fn names<'a>(paths: impl IntoIterator<Item = &'a RelativePath>) -> Vec<u8> {
    // "./" keeps a name that begins with # or ; from being a comment.
    paths.into_iter().flat_map(|path| format!("./{path}\0").into_bytes()).collect()
}

/// Builds the command line.
///
/// # Errors
/// [`NotConfigured`] when the node has no settings for this transport.
pub fn build(
    wanted: &Wanted<'_>,
    rsync: &RsyncSettings,
    ssh: &SshSettings,
    local: &LocalModules,
) -> Result<CommandLine, NotConfigured> {
    let mut line = Line::new();
    line.say(["-t", "-8", "--inplace", "--no-links", "--no-devices", "--no-specials"]);
    line.say(["--chmod=D0750,F0640", "--no-human-readable", "--outbuf=L", "--from0"]);
    // Each line that it writes wakes this process up.
    if wanted.largest_bytes >= SHOWS_PROGRESS {
        line.say(["--info=progress2"]);
    }
    // What came of a file of which nothing was here is known without.
    if !wanted.fresh || wanted.shape == Shape::Directory {
        line.say(["--info=stats2"]);
    }
    line.say([
        format!("--max-size={}", wanted.largest_bytes),
        format!("--timeout={}", rsync.timeout.duration().as_secs()),
    ]);
    line.say([format!("--out-format={}|%i|%C|%n", wanted.marker)]);
    line.say_path("--files-from=", wanted.names);
    match wanted.shape {
        // One file is synced together with its manifest: both wait for the disk once.
        Shape::File => line.say(["--no-relative"]),
        Shape::Directory => line.say(["--no-relative", "-r", "--no-inc-recursive", "--fsync"]),
        // The folders on the way are ours, not the host's.
        Shape::Files => line.say(["--relative", "--no-implied-dirs"]),
    }
    line.say([if wanted.fresh { "--whole-file" } else { "--no-whole-file" }]);
    if wanted.checksum == Checksum::Xxh128 {
        line.say(["--checksum-choice=xxh128"]);
    }
    if rsync.bwlimit.bytes() > 0 {
        line.say([format!("--bwlimit={}", (rsync.bwlimit.bytes() / 1024).max(1))]);
    }
    match wanted.source.transport {
        Transport::RsyncDaemon => line.daemon(wanted.source, rsync, wanted.proxy),
        Transport::Ssh => line.ssh(wanted.source, ssh, wanted.proxy)?,
        Transport::Local => line.local(wanted.source, local)?,
    }
    line.arguments.push(with_slash(wanted.into));
    Ok(CommandLine { program: rsync.program.clone(), arguments: line.arguments, environment: line.environment })
}

struct Line {
    arguments: Vec<OsString>,
    environment: BTreeMap<&'static str, OsString>,
}

impl Line {
    fn new() -> Self {
        // Messages in English and bytes as they are; RSYNC_* of the surroundings must not change what is run.
        let mut environment = BTreeMap::from([("LC_ALL", OsString::from("C"))]);
        for name in ["PATH", "HOME"] {
            if let Some(value) = std::env::var_os(name) {
                environment.insert(name, value);
            }
        }
        Self { arguments: Vec::with_capacity(32), environment }
    }

    fn say(&mut self, words: impl IntoIterator<Item = impl Into<OsString>>) {
        self.arguments.extend(words.into_iter().map(Into::into));
    }

    fn say_path(&mut self, option: &str, path: &Path) {
        let mut word = OsString::from(option);
        word.push(path);
        self.arguments.push(word);
    }

    fn daemon(&mut self, source: &Source, rsync: &RsyncSettings, proxy: Option<&str>) {
        // Delayed acknowledgements cost a small file 90 ms.
        self.say(["--no-motd", "--sockopts=TCP_NODELAY"]);
        self.say([format!("--contimeout={CONNECT_SECONDS}")]);
        let secret = rsync.secret_of(&source.address, &source.module);
        let user = secret.map(|secret| format!("{}@", secret.user)).unwrap_or_default();
        // Its OpenSSL, of which it uses digests, would read the system's configuration each time.
        self.environment.insert("OPENSSL_CONF", "/dev/null".into());
        // Empty where there is none: rsync would ask the terminal, and stop there.
        let password = secret.map_or("", |secret| secret.password.expose());
        self.environment.insert("RSYNC_PASSWORD", password.into());
        if let Some(proxy) = proxy {
            self.environment.insert("RSYNC_PROXY", proxy.into());
        }
        let port = source.port.map(|port| format!(":{port}")).unwrap_or_default();
        self.say([format!("rsync://{user}{}{port}/{}/", bracketed(source), source.module)]);
    }

    fn ssh(&mut self, source: &Source, ssh: &SshSettings, proxy: Option<&str>) -> Result<(), NotConfigured> {
        let user = ssh.user.as_deref().ok_or_else(|| NotConfigured::Ssh(source.address.to_string()))?;
        // rsync splits this at blanks; the settings allow none in these paths.
        let mut shell = format!("{} -o BatchMode=yes -o ConnectTimeout={CONNECT_SECONDS}", ssh.program.display());
        if let Some(key) = &ssh.key {
            shell.push_str(&format!(" -o IdentitiesOnly=yes -i {}", key.display()));
        }
        shell.push_str(" -o StrictHostKeyChecking=yes");
        if let Some(known_hosts) = &ssh.known_hosts {
            shell.push_str(&format!(" -o UserKnownHostsFile={}", known_hosts.display()));
        }
        if let Some(port) = source.port {
            shell.push_str(&format!(" -p {port}"));
        }
        if let Some(proxy) = proxy {
            // This very program, under a name without blanks that an upgrade does not change.
            let program = format!("/proc/{}/exe", std::process::id());
            shell.push_str(&format!(" -o \"ProxyCommand={program} {RELAY} %h %p\""));
            self.environment.insert(RELAY_PROXY, proxy.into());
        }
        self.say(["-s", "-e"]);
        self.say([shell]);
        self.say([format!("{user}@{}:{}/", bracketed(source), source.module)]);
        Ok(())
    }

    fn local(&mut self, source: &Source, local: &LocalModules) -> Result<(), NotConfigured> {
        let root = local.get(source.module.as_str());
        let root = root.ok_or_else(|| NotConfigured::LocalModule(source.module.to_string()))?;
        self.arguments.push(with_slash(root));
        Ok(())
    }
}

fn bracketed(source: &Source) -> String {
    let address = source.address.as_str();
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

fn with_slash(path: &Path) -> OsString {
    let mut word = OsString::from(path);
    word.push("/");
    word
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use longshore_core::{RelativePath, job::HostAddress, job::ModuleName};
    use proptest::prelude::*;

    use super::*;
    use crate::settings::Secrets;

    fn source(transport: Transport, path: &str) -> Source {
        Source {
            transport,
            address: HostAddress::new("fe80::1").unwrap(),
            port: Some(8730),
            module: ModuleName::new("backup").unwrap(),
            path: RelativePath::new(path).unwrap(),
            extra: serde_json::Map::new(),
        }
    }

    fn built(source: &Source, change: impl FnOnce(&mut RsyncSettings, &mut SshSettings)) -> Vec<String> {
        let (mut rsync, mut ssh) = (RsyncSettings::default(), SshSettings::default());
        change(&mut rsync, &mut ssh);
        let local = LocalModules::from([("backup".to_owned(), PathBuf::from("/mnt/dumps"))]);
        let line = build(&wanted(source), &rsync, &ssh, &local).unwrap();
        line.arguments.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    fn wanted(source: &Source) -> Wanted<'_> {
        Wanted {
            source,
            shape: Shape::File,
            largest_bytes: 10,
            fresh: true,
            checksum: Checksum::Xxh128,
            marker: "m",
            names: Path::new("/s/.incoming/j/names"),
            into: Path::new("/s/.incoming/j/backup"),
            proxy: None,
        }
    }

    #[test]
    fn each_transport_names_the_module_only() {
        let daemon = built(&source(Transport::RsyncDaemon, "x/y"), |_, _| {});
        assert_eq!(daemon[daemon.len() - 2..], ["rsync://[fe80::1]:8730/backup/", "/s/.incoming/j/backup/"]);
        let ssh = built(&source(Transport::Ssh, "x"), |_, ssh| {
            ssh.user = Some("backup".into());
            ssh.key = Some("/etc/key".into());
        });
        assert!(ssh.contains(&"-s".to_owned()) && ssh.contains(&"backup@[fe80::1]:backup/".to_owned()), "{ssh:?}");
        assert!(ssh.iter().any(|word| word.contains("-i /etc/key") && word.ends_with("-p 8730")), "{ssh:?}");
        let local = built(&source(Transport::Local, "x"), |_, _| {});
        assert_eq!(local[local.len() - 2], "/mnt/dumps/");
    }

    #[test]
    fn a_resume_never_asks_for_whole_files() {
        let source = source(Transport::RsyncDaemon, "x");
        let line = |fresh| {
            let wanted = Wanted { fresh, ..wanted(&source) };
            let line = build(&wanted, &RsyncSettings::default(), &SshSettings::default(), &LocalModules::new());
            line.unwrap().arguments.contains(&OsString::from("--whole-file"))
        };
        assert!(line(true) && !line(false));
    }

    #[test]
    fn a_password_is_in_the_environment_never_an_argument() {
        let rsync =
            RsyncSettings { secrets: Secrets::one("*", "backup", "puller", "hush"), ..RsyncSettings::default() };
        let source = source(Transport::RsyncDaemon, "x");
        let line = build(&wanted(&source), &rsync, &SshSettings::default(), &LocalModules::new()).unwrap();
        assert_eq!(line.environment["RSYNC_PASSWORD"], "hush");
        assert_eq!(line.environment["OPENSSL_CONF"], "/dev/null");
        assert!(line.arguments.iter().all(|word| !word.to_string_lossy().contains("hush")));
        assert!(line.arguments.iter().any(|word| word == "rsync://puller@[fe80::1]:8730/backup/"));
    }

    #[test]
    fn what_the_node_does_not_know_is_said() {
        let (rsync, ssh) = (RsyncSettings::default(), SshSettings::default());
        let missing = |transport| {
            let source = source(transport, "x");
            build(&wanted(&source), &rsync, &ssh, &LocalModules::new()).unwrap_err().to_string()
        };
        assert!(missing(Transport::Ssh).contains("[ssh] user"));
        assert!(missing(Transport::Local).contains("[local_modules] backup"));
    }

    proptest! {
        #[test]
        fn no_path_reaches_the_command_line(path in "[a-zA-Z0-9*?;|$ -]{8,30}") {
            prop_assume!(RelativePath::new(&path).is_ok());
            let source = source(Transport::RsyncDaemon, &path);
            for word in built(&source, |_, _| {}) {
                prop_assert!(!word.contains(&path));
            }
            prop_assert_eq!(names([&source.path, &source.path]), format!("./{path}\0./{path}\0").into_bytes());
        }
    }
}
