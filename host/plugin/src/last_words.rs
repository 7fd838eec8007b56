//! The last words of a plugin on standard error: the message of a panic or an exception, in any language.
//!
//! Shows no stack, and nothing that a handler says behind the message. Next: `call`, which makes a reason of them.

/// The last line on standard error or, after a panic or an exception, its message.
#[derive(Default)]
pub(super) struct LastWords {
    pub(super) text: String,
    /// Within the frames of a Python exception, whose message follows them.
    traceback: bool,
    /// Where its last frame is.
    place: Option<String>,
    /// The message of the panic or exception is complete; what follows is about its handler.
    complete: bool,
}

impl LastWords {
    /// Maximum number of bytes in a reason.
    pub(super) const SHOWN: usize = 512;
    /// Maximum number of bytes kept. More than are shown, because a secret cut in half could not be
    /// redacted.
    const KEPT: usize = 4096;
    pub(super) const PANIC: &str = "panicked at ";
    /// The beginning of a panic in Go; the stacks of its goroutines follow.
    const GO: [&str; 2] = ["panic: ", "fatal error: "];
    /// Lines that follow a panic in Rust or an exception in JavaScript.
    const IGNORED: [&str; 3] = ["note: run with `RUST_BACKTRACE", "Redirecting call to abort()", "Stack:"];
    const PYTHON: &str = "Traceback (most recent call last):";

    pub(super) fn push_line(&mut self, line: &str) {
        if line == Self::PYTHON {
            (self.traceback, self.complete) = (true, false);
            return;
        }
        if self.traceback
            && let Some(place) = python_place(line)
        {
            self.place = Some(place);
        }
        // Indented lines after a message are its stack.
        let frame =
            line.starts_with([' ', '\t']) && (self.traceback || !self.text.is_empty() && !self.text.starts_with(Self::PANIC));
        if self.complete || frame || Self::IGNORED.iter().any(|start| line.starts_with(start)) {
            return;
        }
        self.complete = self.traceback || Self::GO.iter().any(|start| line.starts_with(start));
        self.traceback = false;
        match line.find(Self::PANIC) {
            Some(start) => self.text = line[start..].to_owned(),
            None if self.text.starts_with(Self::PANIC) => {
                self.text.push(' ');
                self.text.push_str(line.trim_start());
            }
            None => self.text = javascript_exception(line).unwrap_or_else(|| line.to_owned()),
        }
        if let Some(place) = self.place.take_if(|_| self.complete) {
            self.text.push_str(&place);
        }
        self.text.truncate(self.text.floor_char_boundary(Self::KEPT));
    }
}

/// Explains what the glue of a JavaScript plugin says of an exception that is no outage.
fn javascript_exception(line: &str) -> Option<String> {
    let (_, thrown) = line.split_once("(received `")?;
    let (thrown, _) = thrown.split_once("`) specified for `Outage`")?;
    Some(format!("uncaught {thrown} (throw an outage, or return the outcome of each signal)"))
}

/// Returns the place that a line of a Python traceback names: `  File "/0/plugin.py", line 3, in send`.
fn python_place(line: &str) -> Option<String> {
    let (file, rest) = line.trim_start().strip_prefix("File \"")?.split_once("\", line ")?;
    let file = file.rsplit('/').next().unwrap_or(file);
    let (number, function) = rest.split_once(", in ").unwrap_or((rest, "module"));
    Some(format!(" (at {file}:{number} in {function})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_cut_between_characters() {
        let mut words = LastWords::default();
        words.push_line(&"é".repeat(LastWords::KEPT));
        assert_eq!(words.text.len(), LastWords::KEPT);
    }

    #[test]
    fn an_exception_is_reported_without_its_stack_and_handler() {
        let last_words = |lines: &str| {
            let mut words = LastWords::default();
            lines.lines().for_each(|line| words.push_line(line));
            words.text
        };
        let go = "panic: no such order\ngoroutine 1 [running]:\nmain.send()\n\tplugin.go:57 +0x1";
        assert_eq!(last_words(go), "panic: no such order");
        let python =
            "starting\nTraceback (most recent call last):\n  File \"plugin.py\", line 3, in send\nValueError: no such order";
        let met = "thread '<unnamed>' panicked at runtime/src/lib.rs:1:1:\nPython function threw an unexpected exception";
        assert_eq!(last_words(&format!("{python}\n{met}")), "ValueError: no such order (at plugin.py:3 in send)");
        let chained = "During handling of the above exception, another exception occurred:\nTraceback (most recent call last):";
        assert_eq!(last_words(&format!("{python}\n{chained}\n  File\nKeyError: 1\n{met}")), "KeyError: 1");
        let javascript = "oops (received `Error: no such order`)\nStack:\n  send@plugin.js:9:17\nRedirecting call to abort() to mozalloc_abort";
        assert_eq!(last_words(javascript), "oops (received `Error: no such order`)");
        let javascript = "invalid variant tag value `undefined` (received `Error: no such order`) specified for `Outage`";
        assert!(last_words(javascript).starts_with("uncaught Error: no such order ("));
        let rust = "thread 'main' panicked at src/lib.rs:5:9:\nno such order\nnote: run with `RUST_BACKTRACE=1`";
        assert_eq!(last_words(rust), "panicked at src/lib.rs:5:9: no such order");
    }
}
