//! Text that somebody else wrote: cut to a bound, and escaped before it is shown.
//!
//! Used wherever a plugin, a database or a bus puts words into the relay's mouth.

use std::borrow::Cow;

/// Cuts a text to at most `max` bytes, between characters, and notes its full length behind them.
pub fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        let note = format!("… (cut, {} bytes)", text.len());
        text.truncate(text.floor_char_boundary(max));
        text.push_str(&note);
        // A text of megabytes must not be kept for its first words.
        text.shrink_to_fit();
    }
}

/// Escapes characters that could end a line, control a terminal, or reorder what is read.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) { printable.extend(c.escape_default()) } else { printable.push(c) }
    }
    Cow::Owned(printable)
}

/// Returns whether this is a control character, a line separator of Unicode, or a mark of direction.
pub fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let cut_to = |text: &str, max| {
            let mut text = text.to_owned();
            cut(&mut text, max);
            text
        };
        assert_eq!(cut_to("four", 4), "four");
        assert_eq!(cut_to("fünf", 2), "f… (cut, 5 bytes)");
        assert_eq!(cut_to("five!", 4), "five… (cut, 5 bytes)");
    }

    #[test]
    fn nothing_forges_a_line_or_controls_a_terminal() {
        assert!(matches!(printable("plain, größer, 日本 🦀"), Cow::Borrowed(_)));
        assert_eq!(printable("a\nb\r\u{1b}[31m\t\u{7f}\u{9b}"), r"a\nb\r\u{1b}[31m\t\u{7f}\u{9b}");
        assert_eq!(printable("\u{2028}\u{202e}\u{2066}\u{61c}"), r"\u{2028}\u{202e}\u{2066}\u{61c}");
    }
}
