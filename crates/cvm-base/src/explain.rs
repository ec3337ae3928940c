//! How an error tells its reader what to do next.

/// An error with a stable code and advice.
///
/// `Display` says what failed, what was expected and what was found. [`Explain::help`] says why it
/// probably happened and what to do next. The command line prints
/// `error[CODE]: DISPLAY` and `help: HELP`; scripts match on the code, which never changes meaning.
pub trait Explain: std::error::Error {
    /// A stable code that no other error has: letters that name the area, and a number, as
    /// `SEAL-012`.
    fn code(&self) -> &'static str;
    /// The probable cause and the next step, one or two sentences.
    fn help(&self) -> String;
}
