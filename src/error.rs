//! The library's one error type: who can fix it ([`ErrorKind`]) and one sentence that says what is wrong.

use std::io::Read;

/// Result with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Opens a regular file. A pipe or a device is refused: reading it might never end.
///
/// # Errors
/// When the file cannot be opened or is not a regular file.
pub fn open_file(path: &std::path::Path) -> Result<std::fs::File> {
    let fail = |e| Error::io(path, e);
    // By path: opening a pipe would wait for its other end.
    let metadata = path.metadata().map_err(fail)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "a folder" } else { "not a regular file" };
        return Err(Error::input(format!("{}: this is {what}", path.display())));
    }
    std::fs::File::open(path).map_err(fail)
}

/// Refuses a path that exists and is not a regular file: a link may lead anywhere, and opening a pipe would block.
///
/// # Errors
/// Input, naming the path.
pub fn regular_or_free(path: &std::path::Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(there) if !there.is_file() => Err(Error::input(format!("{}: this is not a regular file", path.display()))),
        _ => Ok(()),
    }
}

/// Reads a regular file.
///
/// # Errors
/// As for [`open_file`], and when it cannot be read.
pub fn read_file(path: &std::path::Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?.read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    Ok(bytes)
}

/// Who can fix an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A picture, array or list given to be explained is unusable.
    Input,
    /// A weights file or graph is unusable.
    Model,
    /// An option or parameter has no meaning here, for any input.
    Settings,
    /// An option or parameter has no meaning for an input of this shape, but may have one for others.
    Shape,
    /// A resource limit (memory, picture size) would be exceeded.
    Limit,
    /// The requested device does not exist on this machine.
    NoDevice,
    /// A device failed while running.
    Device,
    /// A kernel did not compile.
    Kernel,
    /// Reading or writing a file failed.
    Io,
    /// The work was asked to stop.
    Cancelled,
}

/// What went wrong, in one sentence that names the file, tensor, node or option.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),+ $(,)?) => {
        $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Self { Self::new(ErrorKind::$kind, message) })+
    };
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    constructors! {
        /// Unusable picture, array or list.
        input => Input,
        /// Unusable weights or graph.
        model => Model,
        /// Meaningless option or parameter.
        settings => Settings,
        /// Option or parameter with no meaning for an input of this shape.
        shape => Shape,
        /// Resource limit exceeded.
        limit => Limit,
        /// No such device here.
        no_device => NoDevice,
        /// Device failure.
        device => Device,
        /// Kernel that does not compile; the message holds the compiler's log.
        kernel => Kernel,
        /// Work that was asked to stop.
        cancelled => Cancelled,
    }

    /// A failed read or write of `path`.
    pub fn io(path: impl AsRef<std::path::Path>, source: std::io::Error) -> Self {
        Self {
            kind: ErrorKind::Io,
            message: format!("{}: {source}", path.as_ref().display()),
            source: Some(Box::new(source)),
        }
    }

    /// The same error, with `context: ` before its sentence.
    #[must_use]
    pub fn within(mut self, context: impl std::fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Who can fix it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}
