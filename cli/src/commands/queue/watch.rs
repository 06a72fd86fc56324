//! `longshore queue watch`: the same look again and again.

use std::{io::Write as _, time::Duration};

use console::{Key, Term};
use longshore_core::{Millis, exit::Exit};

use super::shown;
use crate::{
    commands::Context,
    failure::Failure,
    show::{self, text},
};

/// Looks until `q`, Escape or Ctrl-C. What can't be asked for is shown as such and asked for again: a watch outlives a restart.
pub(super) async fn run(context: &Context, every: Duration) -> Result<Exit, Failure> {
    let term = Term::stdout();
    let is_terminal = term.is_term() && !context.json;
    let mut stopped = stopped(is_terminal);
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(200)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut lines = 0;
    loop {
        tokio::select! {
            () = &mut stopped => return Ok(Exit::Done),
            _ = ticks.tick() => {}
        }
        let answer = context.client.get(&["api", "v1", "queues"], &[]).await;
        if context.json {
            show::line(&answer?)?;
            continue;
        }
        let now = text::moment(Millis::now());
        let body = answer.and_then(shown).unwrap_or_else(|failure| format!("{failure}\n"));
        let screen = format!("{now}\n{body}");
        if is_terminal {
            lines = redraw(&term, lines, &screen)?;
        } else {
            show::lines(&format!("{screen}\n"))?;
        }
    }
}

/// Draws over the lines drawn before, without clearing first, so that nothing flickers. Returns how many lines there are now.
fn redraw(term: &Term, before: usize, screen: &str) -> Result<usize, Failure> {
    let rows = usize::from(term.size().0).saturating_sub(1).max(1);
    let shown: Vec<&str> = screen.lines().take(rows).collect();
    let mut out = String::new();
    if before > 0 {
        out.push_str(&format!("\x1b[{before}A"));
    }
    for line in &shown {
        // To the line's end nothing is left of what stood there.
        out.push_str(&format!("\r{line}\x1b[K\n"));
    }
    out.push_str("\x1b[J");
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(out.as_bytes())?;
    stdout.flush()?;
    Ok(shown.len())
}

/// Ends when a person wants no more. Keys are read by a thread of its own, which the program's end ends.
fn stopped(is_terminal: bool) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    let (pressed, press) = tokio::sync::oneshot::channel();
    if is_terminal {
        std::thread::spawn(move || {
            let term = Term::stdout();
            while let Ok(key) = term.read_key_raw() {
                if matches!(key, Key::Char('q' | 'Q') | Key::Escape | Key::CtrlC) {
                    let _ = pressed.send(());
                    return;
                }
            }
        });
        Box::pin(async move {
            // Without keys to read, only Ctrl-C is left.
            if press.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    } else {
        Box::pin(async {
            let _ = tokio::signal::ctrl_c().await;
        })
    }
}
