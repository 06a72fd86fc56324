//! `check`: looks at everything that a run needs, and at what storage nodes need of this host, without running a script.
//! Whether an rsync module really is the `back_dir` is seen by a file that is put there for a moment and looked for through
//! the daemon: no reading of its configuration could tell.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use longshore_core::{Millis, Transport, exit::Exit, queue::Queue, redis_link::RedisLink};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
    time::timeout,
};

use crate::{durable, plan::Plan, settings::Settings};

/// The rsync daemon is on this host: it answers soon or not at all.
const DAEMON_ANSWERS_WITHIN: Duration = Duration::from_secs(5);
const RSYNC_PORT: u16 = 873;
/// More than this, and times that hosts write are misleading.
const CLOCKS_AGREE_WITHIN: Duration = Duration::from_secs(5);

/// Prints one line for each thing looked at; [`Exit::FoundWrong`] when one is wrong.
///
/// # Errors
/// None now; a check that cannot be made is a wrong thing.
pub async fn check(settings: &Settings) -> anyhow::Result<Exit> {
    let mut findings = Findings::default();
    state_folder(settings, &mut findings);
    queue(settings, &mut findings).await;
    if settings.instance.is_empty() {
        findings.add("configuration", Err("no [instance.NAME]: nothing will be backed up".into()));
    }
    for plan in settings.plans(&[]).unwrap_or_default() {
        section(settings, &plan, &mut findings).await;
    }
    if let Some(submit) = &settings.submit {
        let place = settings.place(&submit.rsync_module, settings.transport);
        findings.add("submit back_dir", folder(&submit.back_dir));
        if settings.transport == Transport::RsyncDaemon {
            let module = submit.rsync_module.to_string();
            findings.add("submit rsync", module_of(settings, place.module.as_str(), &module, &submit.back_dir).await);
        }
    }
    let (right, wrong) = (findings.right, findings.wrong);
    println!("{right} right, {wrong} wrong");
    Ok(if wrong == 0 { Exit::Done } else { Exit::FoundWrong })
}

/// `Ok` says what was seen, `Err` what is wrong and what to do.
type Finding = Result<String, String>;

#[derive(Default)]
struct Findings {
    right: u32,
    wrong: u32,
}

impl Findings {
    fn add(&mut self, what: &str, finding: Finding) {
        match finding {
            Ok(seen) => {
                self.right += 1;
                println!("ok     {what}: {seen}");
            }
            Err(problem) => {
                self.wrong += 1;
                println!("WRONG  {what}: {problem}");
            }
        }
    }
}

fn state_folder(settings: &Settings, findings: &mut Findings) {
    let probe = settings.state_dir.join("check");
    let written = durable::make_folder(&settings.state_dir).and_then(|()| durable::write(&probe, b"check"));
    let finding = written.and_then(|()| durable::remove(&probe).map(drop)).map_err(|error| error.to_string());
    findings.add("state_dir", finding.map(|()| format!("{} can be written", settings.state_dir.display())));
}

async fn queue(settings: &Settings, findings: &mut Findings) {
    let queue = Queue::new(RedisLink::new(&settings.redis));
    let name = queue.link().name().to_owned();
    match queue.mailbox(&settings.server_id).await {
        Ok(_) => findings.add("redis", Ok(format!("{name} answers"))),
        Err(error) => return findings.add("redis", Err(error.to_string())),
    }
    // A host may have no right to ask for more than its own; what it may not see it cannot check.
    if let Ok(missing) = queue.link().requirements().await {
        missing.into_iter().for_each(|missing| findings.add("redis", Err(missing)));
    }
    if let Ok(theirs) = queue.now_micros().await {
        let theirs = Millis(i64::try_from(theirs / 1000).unwrap_or(i64::MAX));
        let apart = Millis::now().since(theirs).max(theirs.since(Millis::now()));
        let shown = format!("{:.1} s from that of Redis", apart.as_secs_f64());
        let agrees = apart <= CLOCKS_AGREE_WITHIN;
        findings.add("clock", if agrees { Ok(shown) } else { Err(format!("{shown}; set it by NTP")) });
    }
}

async fn section(settings: &Settings, plan: &Plan, findings: &mut Findings) {
    let what = |part: &str| format!("[{}] {part}", plan.section);
    findings.add(&what("back_dir"), folder(&plan.back_dir));
    findings.add(&what("back_log"), log(&plan.back_log));
    if let Some(path) = &plan.last_all_log {
        findings.add(&what("last_all_log"), log(path));
    }
    findings.add(&what("script"), script(&plan.script).await);
    if plan.place.transport == Transport::RsyncDaemon {
        let folder = plan.place.folder.as_ref().map(|folder| format!("/{folder}")).unwrap_or_default();
        let module = plan.place.module.as_str();
        findings.add(&what("rsync"), module_of(settings, module, &format!("{module}{folder}"), &plan.back_dir).await);
    }
}

fn folder(path: &Path) -> Finding {
    match fs::read_dir(path) {
        Ok(_) => Ok(format!("{} can be read", path.display())),
        Err(error) => Err(format!("{}: {error}; make it, or correct the path", path.display())),
    }
}

fn log(path: &Path) -> Finding {
    let parent = path.parent().unwrap_or_else(|| Path::new("/"));
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(format!("{} is not a regular file", path.display())),
        Ok(_) => Ok(format!("{} is there", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound && parent.is_dir() => {
            Ok(format!("{} is not there yet; the script will write it", path.display()))
        }
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Whether the shell understands the line, and the program that it begins with exists.
async fn script(line: &str) -> Finding {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-n", "-c", line]).stdin(Stdio::null());
    let output = shell.output().await.map_err(|error| format!("/bin/sh: {error}"))?;
    if !output.status.success() {
        return Err(format!("the shell does not understand it: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let mut words = line.split_ascii_whitespace();
    let interpreters = ["sh", "bash", "dash", "python", "python3", "perl", "ruby", "/bin/sh", "/bin/bash"];
    let program = words.next().unwrap_or_default();
    let program = match interpreters.contains(&program) {
        true => words.next().filter(|word| word.starts_with('/')).unwrap_or(program),
        false => program,
    };
    if program.starts_with('/') && !Path::new(program).exists() {
        return Err(format!("{program} does not exist"));
    }
    Ok("the shell understands it".to_owned())
}

/// Whether the local daemon has `module`, and `path` in it is `back_dir`.
async fn module_of(settings: &Settings, module: &str, path: &str, back_dir: &Path) -> Finding {
    let address = settings.rsyncd.check_address.as_ref().map_or("127.0.0.1", |address| address.as_str());
    let port = settings.rsyncd.port.unwrap_or(RSYNC_PORT);
    let needs_secret = match timeout(DAEMON_ANSWERS_WITHIN, ask_daemon(address, port, module)).await {
        Ok(Ok(needs_secret)) => needs_secret,
        Ok(Err(error)) => return Err(format!("rsync daemon {address}:{port}: {error}")),
        Err(_) => return Err(format!("rsync daemon {address}:{port} does not answer")),
    };
    if needs_secret && settings.rsyncd.password.is_none() {
        return Ok(format!(
            "module {module} is there and wants a secret; with [rsyncd] user and password more is checked"
        ));
    }
    let probe = Probe::put(back_dir).map_err(|error| format!("{}: {error}", back_dir.display()))?;
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let user = settings.rsyncd.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
    let mut rsync = Command::new("rsync");
    rsync.args(["--list-only", "--contimeout=5", "--timeout=10"]).stdin(Stdio::null());
    rsync.arg("--").arg(format!("rsync://{user}{host}:{port}/{path}/{}", probe.name));
    if let Some(password) = &settings.rsyncd.password {
        rsync.env("RSYNC_PASSWORD", password.expose());
    }
    let output = rsync.output().await.map_err(|error| format!("rsync: {error}; is it installed?"))?;
    if output.status.success() {
        return Ok(format!("{path} of the daemon at {address}:{port} is {}", back_dir.display()));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("no such file");
    Err(format!("{path} of the daemon at {address}:{port} is not {}, or may not be read: {said}", back_dir.display()))
}

/// Speaks the first words of rsync's protocol: whether the module wants a secret.
async fn ask_daemon(address: &str, port: u16, module: &str) -> io::Result<bool> {
    let mut stream = BufReader::new(TcpStream::connect((address, port)).await?);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    if !line.starts_with("@RSYNCD:") {
        return Err(io::Error::other("what answers there is not an rsync daemon"));
    }
    stream.write_all(format!("@RSYNCD: 31.0\n{module}\n").as_bytes()).await?;
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::Error::other("it closed the connection; see its log"));
        }
        let word = line.trim_end();
        // Other lines are the administrator's greeting.
        match word.split(' ').nth(1) {
            Some("OK") if word.starts_with("@RSYNCD:") => return Ok(false),
            Some("AUTHREQD") if word.starts_with("@RSYNCD:") => return Ok(true),
            _ if word.starts_with("@ERROR") => return Err(io::Error::other(word.to_owned())),
            _ => {}
        }
    }
}

/// A small file in a folder, for as long as the value lives.
struct Probe {
    path: PathBuf,
    name: String,
}

impl Probe {
    fn put(folder: &Path) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let name = format!("longshore-check-{}", std::process::id());
        let path = folder.join(&name);
        fs::write(&path, b"put here by longshore-agent check\n")?;
        // The daemon reads as a user of its own.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        Ok(Self { path, name })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
