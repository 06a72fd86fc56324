//! The stop request, as a value passed down. The first TERM or INT asks for an ordered end; the second ends at once, which
//! is safe, since every step commits at one point.

use std::{future::Future, io};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A request to stop that many can await. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// One that only [`Self::request`] requests: for tests, and for parts of a program.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that SIGTERM and SIGINT request. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When the signals can't be listened for.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let ours = shutdown.clone();
        tokio::spawn(async move {
            loop {
                let (name, number) = tokio::select! {
                    _ = terminate.recv() => ("TERM", 15),
                    _ = interrupt.recv() => ("INT", 2),
                };
                if ours.is_requested() {
                    eprintln!("second signal ({name}): ending at once");
                    std::process::exit(128 + number);
                }
                tracing::info!(signal = name, "stopping; a second signal ends at once");
                ours.request();
            }
        });
        Ok(shutdown)
    }

    /// Asks everyone to stop. Again is nothing.
    pub fn request(&self) {
        self.0.cancel();
    }

    /// Whether it was requested.
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Returns when it was requested, at once when it was already. Safe to drop and to await again.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }

    /// `work`'s result, or nothing when the request comes first; then `work` is dropped where it stands.
    pub async fn unless_requested<F: Future>(&self, work: F) -> Option<F::Output> {
        self.0.run_until_cancelled(work).await
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read},
        process::{Child, Command, Stdio},
    };

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    const ROLE: &str = "LONGSHORE_TEST_SHUTDOWN_ROLE";

    /// Not a test of its own: the process that the tests below start and signal. It drains for ever.
    #[test]
    #[ignore = "a process for the tests beside it"]
    fn the_process_that_is_signalled() {
        if std::env::var_os(ROLE).is_none() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let shutdown = Shutdown::on_signals().expect("signals");
            eprintln!("ready");
            shutdown.requested().await;
            eprintln!("draining");
            std::future::pending::<()>().await;
        });
    }

    fn start() -> (Child, BufReader<std::process::ChildStderr>) {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--ignored", "--exact", "shutdown::tests::the_process_that_is_signalled", "--nocapture"])
            .env(ROLE, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let errors = BufReader::new(child.stderr.take().expect("piped"));
        (child, errors)
    }

    fn wait_for(errors: &mut impl BufRead, wanted: &str) {
        let found = errors.by_ref().lines().map_while(Result::ok).any(|line| line.ends_with(wanted));
        assert!(found, "the process ended without {wanted:?}");
    }

    fn send(child: &Child, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("signalled");
    }

    #[test]
    fn the_first_signal_asks_and_the_second_ends_at_once() {
        let (mut child, mut errors) = start();
        wait_for(&mut errors, "ready");
        send(&child, Signal::INT);
        wait_for(&mut errors, "draining");
        send(&child, Signal::TERM);
        let mut rest = String::new();
        errors.read_to_string(&mut rest).expect("its last words");
        assert_eq!(child.wait().expect("ended").code(), Some(143));
        assert!(rest.contains("second signal (TERM): ending at once"), "{rest}");
    }

    #[tokio::test]
    async fn all_clones_are_one_request_and_work_goes_on_until_it_comes() {
        let shutdown = Shutdown::new();
        let other = shutdown.clone();
        assert_eq!(other.unless_requested(async { 7 }).await, Some(7));
        shutdown.request();
        assert!(other.is_requested());
        assert_eq!(other.unless_requested(std::future::pending::<()>()).await, None);
    }
}
