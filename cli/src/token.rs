//! The fleet's shared secret, from the environment.
//!
//! Asked by every command of a fleet before it does anything. Law: a value that could not travel with every call is
//! refused at once, not when the first batch is delivered; the value itself is never shown.

use std::ffi::OsString;

use vst_common::exit::Exit;

use crate::error::Failure;

pub(crate) const NAME: &str = "VST_TOKEN";

/// `None` where the fleet has none.
pub(crate) fn from_env() -> Result<Option<String>, Failure> {
    of(std::env::var_os(NAME)).map_err(|why| Failure::new(Exit::Usage, why))
}

/// The same; where the environment has none, from a file.
pub(crate) fn from_env_or(file: Option<&std::path::Path>) -> Result<Option<String>, Failure> {
    match (from_env()?, file) {
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path).map_err(|e| {
                Failure::new(Exit::Scenario, format!("token_file `{}` cannot be read: {e}", path.display()))
            })?;
            of(Some(text.trim_end().into())).map_err(|why| Failure::new(Exit::Usage, why))
        }
        (found, _) => Ok(found),
    }
}

fn of(value: Option<OsString>) -> Result<Option<String>, String> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    // It travels as a header of HTTP/2, which carries nothing else.
    match value.into_string() {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(text)),
        _ => Err(format!(
            "{NAME} holds something else than the letters, digits and signs of ASCII without blanks, and cannot be \
             sent; make one with `openssl rand -hex 32` and give it to every process of the fleet"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn what_cannot_travel_is_refused_and_not_shown() {
        assert_eq!(of(None), Ok(None));
        assert_eq!(of(Some(OsString::new())), Ok(None));
        assert_eq!(of(Some("s3cret+/=!".into())), Ok(Some("s3cret+/=!".to_owned())));
        for bad in ["schlüssel", "two words", " padded", "line\n", "null\0", "\u{7f}"] {
            let said = of(Some(bad.into())).unwrap_err();
            assert!(said.contains("VST_TOKEN") && said.contains("openssl") && !said.contains(bad), "{said}");
        }
        assert!(of(Some(OsString::from_vec(vec![b'a', 0xff]))).is_err(), "it is not taken for none");
    }
}
