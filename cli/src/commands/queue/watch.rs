//! `longshore queue watch`: the same look again and again.

use std::{
    borrow::Cow,
    io::{IsTerminal as _, Write as _},
    os::fd::AsFd as _,
    time::Duration,
};

use console::{Key, Term, truncate_str};
use longshore_core::{Millis, exit::Exit};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::{
    ctrl_c,
    unix::{SignalKind, signal},
};

use super::shown;
use crate::{
    client,
    commands::Context,
    failure::Failure,
    show::{self, text},
};

/// One look takes no longer: a dashboard that hangs is shown as one that does not answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Looks until `q`, Escape, Ctrl-C or a signal to end, also while the dashboard is asked. What can't be asked for is told and asked
/// for again: a watch outlives a restart. It ends where only another token or address would help.
pub(super) async fn run(context: &Context, every: Duration) -> Result<Exit, Failure> {
    let term = Term::stdout();
    let is_terminal = term.is_term() && !context.json;
    let _as_it_was = is_terminal.then(AsItWas::now);
    let stopped = stopped(is_terminal);
    tokio::pin!(stopped);
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(200)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut drawn = Drawn::default();
    loop {
        let look = async {
            ticks.tick().await;
            context.client.get_within(ANSWER_WITHIN, &["api", "v1", "queues"]).await
        };
        let answer = tokio::select! {
            ended = &mut stopped => return Ok(ended.map(|()| Exit::Done)?),
            answer = look => answer,
        };
        if let Err(failure) = &answer
            && failure.exit == Exit::Configuration
        {
            return answer.map(|_| Exit::Done);
        }
        if context.json {
            match answer {
                Ok(queues) => show::line(&queues)?,
                Err(failure) => show::beside(&format!("longshore: {}", failure.message)),
            }
            continue;
        }
        let now = text::moment(Millis::now());
        let body = answer
            .and_then(client::read)
            .map(|queues| shown(&queues))
            .unwrap_or_else(|failure| show::note(&failure.to_string()));
        let screen = format!("{now}\n{body}");
        if is_terminal {
            drawn.again(&term, &screen)?;
        } else {
            show::lines(&format!("{screen}\n"))?;
        }
    }
}

/// What is on the terminal: lines that each take one row of it, so that going up over them finds the first.
#[derive(Debug, Default)]
struct Drawn {
    lines: usize,
    size: (u16, u16),
}

impl Drawn {
    /// Draws over the lines drawn before, without clearing first, so that nothing flickers.
    fn again(&mut self, term: &Term, screen: &str) -> Result<(), Failure> {
        let size = term.size();
        let lines = fitted(screen, size);
        let mut out = String::new();
        if self.size != size && self.lines > 0 {
            // The terminal has laid the old lines out anew, nobody knows where.
            out.push_str("\x1b[H\x1b[2J");
        } else if self.lines > 0 {
            out.push_str(&format!("\x1b[{}A", self.lines));
        }
        for line in &lines {
            // Erased first: after a line as wide as the terminal, the cursor still stands on its last cell.
            out.push_str(&format!("\r\x1b[K{line}\n"));
        }
        out.push_str("\x1b[J");
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(out.as_bytes())?;
        stdout.flush()?;
        *self = Self { lines: lines.len(), size };
        Ok(())
    }
}

/// The lines of `screen` that fit a terminal of so many rows and columns, none wider than it; the last one tells of those that don't.
fn fitted(screen: &str, (rows, columns): (u16, u16)) -> Vec<Cow<'_, str>> {
    // The cursor stands in a row of its own.
    let rows = usize::from(rows).saturating_sub(1).max(1);
    let mut lines: Vec<_> = screen.lines().map(|line| truncate_str(line, columns.into(), "…")).collect();
    if lines.len() > rows {
        let more = lines.len() - (rows - 1);
        lines.truncate(rows - 1);
        lines.push(truncate_str(&format!("… {more} more lines"), columns.into(), "…").into_owned().into());
    }
    lines
}

/// Ends when a person wants no more; on a terminal with any signal to end, since a program that just died would leave it raw.
async fn stopped(is_terminal: bool) -> std::io::Result<()> {
    if !is_terminal {
        return ctrl_c().await;
    }
    let (mut terminate, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    tokio::select! {
        () = pressed() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
        interrupted = ctrl_c() => interrupted,
    }
}

/// Ends with a key that ends the watch. Keys are read by a thread of its own, which the program's end ends.
async fn pressed() {
    let (pressed, press) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let term = Term::stdout();
        while let Ok(key) = term.read_key_raw() {
            if matches!(key, Key::Char('q' | 'Q') | Key::Escape | Key::CtrlC) {
                let _ = pressed.send(());
                return;
            }
        }
    });
    // Without keys to read, only signals are left.
    if press.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// How the terminal was before keys were read from it, as which it is left: who waits for a key has it raw until one comes.
struct AsItWas(Option<(std::fs::File, Termios)>);

impl AsItWas {
    fn now() -> Self {
        // Where keys are read from.
        let stdin = std::io::stdin();
        let file = match stdin.is_terminal() {
            true => stdin.as_fd().try_clone_to_owned().map(Into::into),
            false => std::fs::File::open("/dev/tty"),
        };
        Self(file.ok().and_then(|file| tcgetattr(&file).ok().map(|termios| (file, termios))))
    }
}

impl Drop for AsItWas {
    fn drop(&mut self) {
        if let Some((file, termios)) = &self.0 {
            let _ = tcsetattr(file, OptionalActions::Now, termios);
        }
    }
}

#[cfg(test)]
mod tests {
    use console::measure_text_width;

    use super::fitted;

    #[test]
    fn every_line_takes_one_row_and_what_does_not_fit_is_told() {
        let screen = format!("{}\n\u{1b}[31m{}\u{1b}[0m\nlast\n", "界".repeat(50), "a".repeat(90));
        let lines = fitted(&screen, (24, 80));
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| measure_text_width(line) <= 80), "{lines:?}");
        assert!(lines[1].contains('…') && lines[1].ends_with("\u{1b}[0m"), "{lines:?}");
        let few = fitted("a\nb\nc\nd\n", (4, 80));
        assert_eq!(few, ["a", "b", "… 2 more lines"]);
        assert_eq!(fitted("a\nb\nc\n", (4, 80)), ["a", "b", "c"]);
    }
}
