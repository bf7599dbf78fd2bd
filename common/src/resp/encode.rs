//! Encoding of commands: an array of bulk strings, in one buffer that is reused.

/// A command whose arguments do not change, but for some that are filled in at send time.
///
/// The fixed bytes are encoded once; a send copies them and the variable arguments between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pieces: Vec<Vec<u8>>,
}

impl Command {
    /// A command from its arguments; `None` marks one that is filled in at send time.
    #[must_use]
    pub fn new(args: &[Option<&[u8]>]) -> Self {
        let mut pieces = Vec::new();
        let mut piece = header(args.len());
        for arg in args {
            match arg {
                Some(arg) => push_bulk(&mut piece, arg),
                None => pieces.push(std::mem::take(&mut piece)),
            }
        }
        pieces.push(piece);
        Self { pieces }
    }

    /// How many arguments are filled in at send time.
    #[must_use]
    pub fn holes(&self) -> usize {
        self.pieces.len().saturating_sub(1)
    }

    /// Appends the command with its variable arguments. Missing ones are sent empty, surplus ones are ignored.
    pub fn encode(&self, out: &mut Vec<u8>, variable: &[&[u8]]) {
        let mut variable = variable.iter();
        for (i, piece) in self.pieces.iter().enumerate() {
            if i > 0 {
                push_bulk(out, variable.next().copied().unwrap_or_default());
            }
            out.extend_from_slice(piece);
        }
    }
}

/// Appends a whole command.
pub fn push_args(out: &mut Vec<u8>, args: &[&[u8]]) {
    out.extend_from_slice(&header(args.len()));
    for arg in args {
        push_bulk(out, arg);
    }
}

fn header(args: usize) -> Vec<u8> {
    let mut out = vec![b'*'];
    out.extend_from_slice(itoa::Buffer::new().format(args).as_bytes());
    out.extend_from_slice(b"\r\n");
    out
}

fn push_bulk(out: &mut Vec<u8>, arg: &[u8]) {
    out.push(b'$');
    out.extend_from_slice(itoa::Buffer::new().format(arg.len()).as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(arg);
    out.extend_from_slice(b"\r\n");
}
