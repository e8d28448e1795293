//! Variables of the environment of what runs in the machine.

use std::str::FromStr;

use anyhow::{Result, bail};

use crate::proc::quoted;

/// `NAME=VALUE`, with a name that a shell can export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    name: String,
    value: String,
}

impl Variable {
    /// The line of a shell script that sets it.
    pub(crate) fn export(&self) -> String {
        format!("export {}={}", self.name, quoted(&self.value))
    }
}

impl FromStr for Variable {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((name, value)) = text.split_once('=') else {
            bail!("{text:?} is not NAME=VALUE");
        };
        let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            bail!("{name:?} is no name of a variable");
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::Variable;

    fn export(text: &str) -> Option<String> {
        text.parse().ok().map(|variable: Variable| variable.export())
    }

    #[test]
    fn values_may_be_anything_and_names_may_not() {
        assert_eq!(export("FORM=fexit").unwrap(), "export FORM=fexit");
        assert_eq!(export("A=b=c").unwrap(), "export A=b=c");
        assert_eq!(export("A=").unwrap(), "export A=''");
        assert_eq!(export("A=$(x)").unwrap(), "export A='$(x)'");
        for wrong in ["A", "=b", "1A=b", "A;x=b"] {
            assert_eq!(export(wrong), None, "{wrong}");
        }
    }
}
