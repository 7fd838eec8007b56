//! The guest's stack at a failure: where each function stands in the file, and what a worker process finds out of it.

use std::fmt::Write as _;

use wasmtime::{FrameInfo, WasmBacktrace};

use super::debug_info::Place;
use signalbus_core::text;

/// The guest's stack, innermost function first; empty if unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Backtrace(Vec<Frame>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    place: Place,
    module: String,
    /// As it stands in the file.
    function: String,
}

/// Longest name as it stands in the file.
const LONGEST: usize = 256;

impl From<&WasmBacktrace> for Backtrace {
    fn from(backtrace: &WasmBacktrace) -> Self {
        Self(backtrace.frames().iter().map(Frame::from).collect())
    }
}

impl From<&FrameInfo> for Frame {
    fn from(frame: &FrameInfo) -> Self {
        let short = |name: &str| {
            let mut name = text::printable(name.get(..name.floor_char_boundary(LONGEST)).unwrap_or(name)).into_owned();
            text::cut(&mut name, 2 * LONGEST);
            name
        };
        let offset = frame.module_offset().map_or(0, |offset| offset as u64);
        let function = frame.func_name().map_or_else(|| format!("<wasm function {}>", frame.func_index()), short);
        let module = frame.module().name().map_or_else(|| "<unknown>".to_owned(), short);
        Self { place: Place { function: frame.func_index(), offset }, module, function }
    }
}

impl Backtrace {
    /// What the names of functions begin with that the compiler of Python generates for those of the relay.
    pub(super) const IMPORT: &str = "adapter ";

    /// The innermost function that passes values between the plugin and the relay.
    pub(super) fn boundary(&self) -> Option<&str> {
        self.0.iter().find(|frame| frame.is_boundary()).map(|frame| &*frame.function)
    }

    /// Leaves out what is within and beyond that function, which is not the author's.
    pub(super) fn at_boundary(self) -> Self {
        Self(self.0.into_iter().find(Frame::is_boundary).into_iter().collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns what tells one place of failure from another. The offset within the innermost function is not part of
    /// it, since it is not always reported alike.
    pub(super) fn place(&self) -> Vec<(u32, u64)> {
        let place = |(n, frame): (usize, &Frame)| (frame.place.function, if n == 0 { 0 } else { frame.place.offset });
        self.0.iter().enumerate().map(place).collect()
    }

    pub(super) fn places(&self) -> Vec<Place> {
        self.0.iter().map(|frame| frame.place).collect()
    }

    /// Writes it, with what a worker process has found of its places.
    pub(super) fn written(&self, located: &str) -> String {
        let mut blocks = located.split("\n\n").map(Some).chain(std::iter::repeat(None));
        let mut written = String::new();
        for (n, frame) in self.0.iter().enumerate() {
            let _ = write!(written, "  {n:>3}: {:#8x} - ", frame.place.offset);
            let lines = blocks.next().flatten().unwrap_or_default().lines().filter(|line| !line.is_empty());
            frame.write(lines, &mut written);
        }
        written.truncate(written.trim_end().len());
        written
    }
}

impl Frame {
    fn is_boundary(&self) -> bool {
        self.function.starts_with(Backtrace::IMPORT) || self.function.starts_with("signalbus:plugin/")
    }

    fn write<'a>(&self, lines: impl Iterator<Item = &'a str>, written: &mut String) {
        let mut first = true;
        for line in lines {
            let line = text::printable(line);
            let _ = match line.strip_prefix(' ') {
                Some(place) => writeln!(written, "                    at {place}"),
                None if first => writeln!(written, "{}!{line}", self.module),
                None => writeln!(written, "                - {line}"),
            };
            first = false;
        }
        if first {
            let _ = writeln!(written, "{}!{}", self.module, self.function);
        }
    }
}
