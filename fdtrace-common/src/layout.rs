//! Compile-time proof that both targets lay the wire out the same way.

use core::mem::{align_of, offset_of, size_of};

use crate::{Descriptor, FailureCell, FailureKey, FailureRecord, ListenerFacts, Peers};

const _: () = {
    assert!(size_of::<FailureKey>() == 24);
    assert!(offset_of!(FailureKey, inode) == 8);
    assert!(offset_of!(FailureKey, tgid) == 16);
    assert!(offset_of!(FailureKey, errno) == 20);
    assert!(offset_of!(FailureKey, door) == 22);
    assert!(offset_of!(FailureKey, fd_kind) == 23);

    assert!(size_of::<Descriptor>() == 2 * 8 + 4 * 4 + 5 * 2 + 2 + 2 * 16 + 4);
    assert!(offset_of!(Descriptor, magic) == 8);
    assert!(offset_of!(Descriptor, number) == 16);
    assert!(offset_of!(Descriptor, mode) == 32);
    assert!(offset_of!(Descriptor, local) == 44);

    assert!(size_of::<FailureCell>() == 24);
    assert!(size_of::<Peers>() * 8 == Peers::BITS as usize);

    // The sum of the fields is the size: no padding that could carry kernel memory out.
    assert!(size_of::<ListenerFacts>() == 16 + 3 * 4 + 4 * 2 + 4 + 108);
    assert!(offset_of!(ListenerFacts, family) == 28);
    assert!(offset_of!(ListenerFacts, state) == 36);
    assert!(offset_of!(ListenerFacts, path) == 40);

    assert!(size_of::<FailureRecord>() == 24 + 5 * 8 + 4 * 4 + 16 + 148 + 4);
    assert!(align_of::<FailureRecord>() == 8);
    assert!(offset_of!(FailureRecord, kind) == 64);
    assert!(offset_of!(FailureRecord, comm) == 80);
    assert!(offset_of!(FailureRecord, listener) == 96);
};
