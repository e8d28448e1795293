//! What processes have open: what the kernel side reads, decoded.

use std::{io, sync::Arc};

use crate::{
    decode, kernel,
    model::{DescriptorSource, OpenDescriptor, Pid},
};

/// What tells what a process has open, of an attached kernel side; `None` where the host does not
/// allow the program that does.
#[must_use]
pub fn descriptors(kernel: &kernel::Kernel) -> Option<Arc<dyn DescriptorSource>> {
    Some(Arc::new(Iterated(kernel.descriptors()?)))
}

/// By the program that iterates over descriptors.
struct Iterated(Arc<kernel::Descriptors>);

impl DescriptorSource for Iterated {
    fn read(
        &self,
        pid: Pid,
        every: u32,
        take: &mut dyn FnMut(OpenDescriptor) -> bool,
    ) -> io::Result<bool> {
        let mut undecoded = None;
        let is_all = self.0.read(pid.0, every, |bytes| match decode::descriptor(bytes) {
            Ok(descriptor) => take(descriptor),
            Err(error) => {
                undecoded = Some(error);
                false
            }
        })?;
        undecoded.map_or(Ok(is_all), |error| Err(io::Error::other(error)))
    }
}
