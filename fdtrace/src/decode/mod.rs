//! Stage 2: bytes → event, or descriptor. Total: any bytes give one or an error.
//!
//! Nothing here reads anything but the bytes it is given.

mod descriptor;
mod record;

pub use descriptor::descriptor;
pub use record::record;

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another length than the record has.
    #[error("{got} bytes where a record has {want}")]
    Length {
        /// Bytes there are.
        got: usize,
        /// Bytes there should be.
        want: usize,
    },
    /// A field has a value that the programs never write.
    #[error("field {field} is {value}")]
    Value {
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
}
