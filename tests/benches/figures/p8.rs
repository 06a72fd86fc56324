//! P8: what the agent costs its host beside the script itself: time and memory of one `run` of one section, as cron calls it.
//!
//! The script writes its backup (some bytes) and its log. In turns it is run bare by the shell and by the agent, whose queue
//! is a real Redis, and whose job of the run before has been stored meanwhile, as it usually has. Own time is the difference
//! of the medians; it holds every sync of intent, record, chain and spool. Memory is the kernel's own peak (`VmHWM`).

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Instant,
};

use anyhow::{Context, ensure};
use longshore_tests::{Redis, binary};

use crate::{line, median};

const ROUNDS: usize = 60;
const GOAL_MILLISECONDS: f64 = 15.0;
const GOAL_MEGABYTES: f64 = 12.0;
const SCRIPT: &str = r#"grep VmHWM /proc/$PPID/status > "$LONGSHORE_BACK_DIR/parent"
echo backup > "$LONGSHORE_BACK_DIR/web.tar"
printf 'ok\nweb.tar\n' > "$LONGSHORE_BACK_LOG""#;

/// Prints `P8.time` and `P8.memory`.
pub(crate) fn measure() -> anyhow::Result<()> {
    let redis = Redis::start();
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("data"))?;
    let config = format!(
        "server_id = \"1\"\nbusiness_id = \"1\"\naddress = \"127.0.0.1\"\nqueue = \"level1\"\nstate_dir = \"{}\"\n\
         [redis]\naddress = \"{}\"\n\
         [instance.web]\ntype = \"folder\"\ninstance = \"web\"\nback_dir = \"{}\"\nback_log = \"{}\"\n\
         rsync_module = \"backup\"\nscript = '''{SCRIPT}'''\n",
        at("state").display(),
        redis.address(),
        at("data").display(),
        at("web.log").display(),
    );
    fs::write(at("agent.toml"), config)?;

    let (mut bare, mut whole, mut peak, mut wrapper_peak) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS + 2 {
        let (shell, _) = timed(
            Command::new("/bin/sh")
                .args(["-c", SCRIPT])
                .env("LONGSHORE_BACK_DIR", at("data"))
                .env("LONGSHORE_BACK_LOG", at("web.log")),
        )?;
        let (agent, output) = timed(
            Command::new(binary("longshore-agent"))
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .args(["run", "--log-format", "json", "-c"])
                .arg(at("agent.toml")),
        )?;
        let stored = store_all(&redis)?;
        ensure!(stored == 1, "the run pushed {stored} jobs");
        // The first rounds warm the caches, and ask for rsync's version.
        if round >= 2 {
            bare.push(shell);
            whole.push(agent);
            peak.push(peak_megabytes(&output)?);
            wrapper_peak.push(parent_megabytes(&at("data/parent"))?);
        }
    }
    let (bare, whole) = (median(bare), median(whole));
    eprintln!("P8 the bare script takes {bare:.2} ms, the agent's whole run {whole:.2} ms (medians of {ROUNDS})");
    eprintln!("P8 the wrapper around the script has a peak of {:.2} MB of its own", median(wrapper_peak));
    let own = whole - bare;
    line("P8.time", "own-time-beside-script", own / GOAL_MILLISECONDS, own, GOAL_MILLISECONDS, "ms", "<=1");
    let peak = median(peak);
    line("P8.memory", "peak-of-agent", peak / GOAL_MEGABYTES, peak, GOAL_MEGABYTES, "MB", "<=1");
    Ok(())
}

/// Milliseconds from start to end.
fn timed(command: &mut Command) -> anyhow::Result<(f64, Output)> {
    let began = Instant::now();
    let output = command.output()?;
    let milliseconds = began.elapsed().as_secs_f64() * 1000.0;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok((milliseconds, output))
}

/// What a node does, as far as the host sees it: the inbox is empty, and the mailbox has the end of each job.
fn store_all(redis: &Redis) -> anyhow::Result<usize> {
    let mut connection = redis.connection();
    let jobs: Vec<String> = redis::cmd("LRANGE").arg("level1").arg(0).arg(-1).query(&mut connection)?;
    for job in &jobs {
        let job: serde_json::Value = serde_json::from_str(job)?;
        let id = job["id"].as_str().context("a job has an id")?;
        let (entry, offered) = ("1795143655123456 stored 1795143655123456", format!("longshore:offered:{id}"));
        redis::cmd("HSET").arg("longshore:mailbox:1").arg(id).arg(entry).exec(&mut connection)?;
        redis::cmd("DEL").arg("level1").arg(offered).exec(&mut connection)?;
    }
    Ok(jobs.len())
}

/// The agent says it itself, at the end of its log.
fn peak_megabytes(output: &Output) -> anyhow::Result<f64> {
    let log = String::from_utf8_lossy(&output.stderr);
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let bytes = lines.rev().find_map(|line| line["peak_memory_bytes"].as_f64());
    Ok(bytes.context("the agent logs its peak memory")? / 1e6)
}

fn parent_megabytes(path: &Path) -> anyhow::Result<f64> {
    let text = fs::read_to_string(path)?;
    let kib: f64 = text.split_ascii_whitespace().nth(1).context("VmHWM has a number")?.parse()?;
    Ok(kib * 1024.0 / 1e6)
}
