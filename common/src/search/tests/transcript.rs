//! Reads a recorded transcript and turns each reply back into the bytes that a server would send.

use crate::resp::Frame;

/// One command of a transcript with its reply.
pub(super) struct Exchange {
    /// The command as one line.
    pub(super) command: String,
    reply: Vec<u8>,
    /// The reply's lines as recorded, for replies that are plain text.
    pub(super) text: String,
}

impl Exchange {
    /// The reply, read by the parser under test.
    pub(super) fn frame(&self) -> Frame<'_> {
        Frame::parse(&self.reply).unwrap_or_else(|e| panic!("{}: {e}", self.command))
    }

    pub(super) fn error(&self) -> Option<String> {
        match self.frame() {
            Frame::Error(text) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        }
    }
}

/// Every exchange of a transcript, in order. A reply that was cut off in the recording has no bytes and is left out.
pub(super) fn read(transcript: &str) -> Vec<Exchange> {
    let mut exchanges = Vec::new();
    let mut lines = transcript.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(command) = command(line) else { continue };
        let mut body = Vec::new();
        while let Some(line) = lines.next_if(|line| self::command(line).is_none()) {
            body.push(line);
        }
        let text = body.join("\n");
        let mut cursor = Cursor { lines: &body, at: 0 };
        let reply = if body.first().is_some_and(|line| line.starts_with("  ")) {
            match cursor.value() {
                Some(reply) => reply,
                None => continue,
            }
        } else {
            format!("${}\r\n{text}\r\n", text.len()).into_bytes()
        };
        exchanges.push(Exchange { command: command.to_owned(), reply, text });
    }
    exchanges
}

/// `> FT.X ...` or `7400> FT.X ...` (the port of a node).
fn command(line: &str) -> Option<&str> {
    let (port, command) = line.split_once("> ")?;
    port.bytes().all(|b| b.is_ascii_digit()).then_some(command)
}

struct Cursor<'a> {
    lines: &'a [&'a str],
    at: usize,
}

impl Cursor<'_> {
    /// The value that begins on the current line, over as many lines as it takes.
    fn value(&mut self) -> Option<Vec<u8>> {
        let line = self.lines.get(self.at)?.trim();
        self.at += 1;
        for (word, sign) in [("array(", '*'), ("set(", '~')] {
            if let Some(n) = line.strip_prefix(word) {
                let n: usize = n.strip_suffix(')')?.parse().ok()?;
                let mut out = format!("{sign}{n}\r\n").into_bytes();
                for _ in 0..n {
                    out.extend(self.value()?);
                }
                return Some(out);
            }
        }
        if let Some(n) = line.strip_prefix("map(") {
            let n: usize = n.strip_suffix(')')?.parse().ok()?;
            let mut out = format!("%{n}\r\n").into_bytes();
            for _ in 0..n {
                let key = self.lines.get(self.at)?.trim().strip_suffix(" =>")?;
                self.at += 1;
                out.extend(inline(key)?.0);
                out.extend(self.value()?);
            }
            return Some(out);
        }
        let (out, rest) = inline(line)?;
        rest.is_empty().then_some(out)
    }
}

/// A value written on one line, and what follows it.
fn inline(line: &str) -> Option<(Vec<u8>, &str)> {
    if let Some(rest) = line.strip_prefix("nullbulk") {
        return Some((b"$-1\r\n".to_vec(), rest));
    }
    for (word, sign) in [("array[", '*'), ("set[", '~')] {
        if let Some(mut rest) = line.strip_prefix(word) {
            let mut items = Vec::new();
            let mut n = 0;
            while !rest.starts_with(']') {
                let (item, after) = inline(rest)?;
                items.extend(item);
                n += 1;
                rest = after.strip_prefix(", ").unwrap_or(after);
            }
            let mut out = format!("{sign}{n}\r\n").into_bytes();
            out.extend(items);
            return Some((out, &rest[1..]));
        }
    }
    if let Some(rest) = line.strip_prefix("int ") {
        let end = rest.find([',', ']']).unwrap_or(rest.len());
        return Some((format!(":{}\r\n", &rest[..end]).into_bytes(), &rest[end..]));
    }
    let (word, rest) = line.split_once(' ')?;
    let (bytes, rest) = literal(rest.strip_prefix('b').unwrap_or(rest))?;
    let out = match word {
        "bulk" => [format!("${}\r\n", bytes.len()).into_bytes(), bytes, b"\r\n".to_vec()].concat(),
        "simple" => [b"+".to_vec(), bytes, b"\r\n".to_vec()].concat(),
        "error" => [b"-".to_vec(), bytes, b"\r\n".to_vec()].concat(),
        "double" => [b",".to_vec(), bytes, b"\r\n".to_vec()].concat(),
        _ => return None,
    };
    Some((out, rest))
}

/// A quoted literal with backslash escapes, and what follows it.
fn literal(text: &str) -> Option<(Vec<u8>, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut out = Vec::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Some((out, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'x' => {
                    let digits: String = [chars.next()?.1, chars.next()?.1].iter().collect();
                    out.push(u8::from_str_radix(&digits, 16).ok()?);
                }
                'n' => out.push(b'\n'),
                'r' => out.push(b'\r'),
                't' => out.push(b'\t'),
                other => out.extend(other.to_string().bytes()),
            },
            c => out.extend(c.to_string().bytes()),
        }
    }
    None
}
