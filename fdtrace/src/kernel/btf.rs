//! Field offsets and signatures from the running kernel's BTF, in one pass over its types.
//!
//! The format is Documentation/bpf/btf.rst. Only what the programs need is decoded: aya-obj keeps
//! its members private, and the crates that offer them parse all 150 000 types into structures.

use std::collections::{HashMap, HashSet};

use fdtrace_common::{ABSENT, Offsets};

/// Why a file is no BTF.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum BtfError {
    /// It ends too early.
    #[error("truncated at byte {0}")]
    Truncated(usize),
    /// It starts with something else.
    #[error("not BTF of this byte order: magic {0:#06x}")]
    Magic(u16),
    /// A kind of type that is not in the format.
    #[error("type {id} has kind {kind}, which is not known: later types cannot be found")]
    Kind {
        /// Its id.
        id: usize,
        /// Its kind.
        kind: u32,
    },
}

/// Types of a kernel, undecoded.
pub(crate) struct Btf<'a> {
    strings: &'a [u8],
    types: &'a [u8],
    /// Where each type starts in `types`; ids start at 1.
    starts: Vec<u32>,
    /// Types by kind and name: those that were wanted.
    named: HashMap<(u32, &'a [u8]), u32>,
}

#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    kind_flag: bool,
    members: u32,
    /// Size, or id of another type, as the kind says.
    size_or_id: u32,
    start: usize,
}

/// Where a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    bit: u32,
    ty: u32,
}

const MAGIC: u16 = 0xeb9f;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
/// `struct btf_type`.
const TYPE_LEN: usize = 12;
/// How deep anonymous structures and chains of typedefs may nest: more is a loop.
const MAX_DEPTH: u32 = 32;

impl<'a> Btf<'a> {
    /// Indexes the structures, functions, enums and typedefs that have one of these names.
    pub(crate) fn index(bytes: &'a [u8], wanted: &[&str]) -> Result<Self, BtfError> {
        let wanted: HashSet<&[u8]> = wanted.iter().map(|name| name.as_bytes()).collect();
        let magic = u16_at(bytes, 0)?;
        if magic != MAGIC {
            return Err(BtfError::Magic(magic));
        }
        let header = u32_at(bytes, 4)? as usize;
        let section = |offset: usize| -> Result<&'a [u8], BtfError> {
            let start = header + u32_at(bytes, offset)? as usize;
            let end = start + u32_at(bytes, offset + 4)? as usize;
            bytes.get(start..end).ok_or(BtfError::Truncated(bytes.len()))
        };
        let mut btf = Self {
            types: section(8)?,
            strings: section(16)?,
            starts: vec![0],
            named: HashMap::new(),
        };
        btf.starts.reserve(btf.types.len() / 24);
        let mut start = 0;
        while start < btf.types.len() {
            let ty = btf.type_at(start)?;
            if matches!(ty.kind, KIND_STRUCT | KIND_ENUM | KIND_TYPEDEF | KIND_FUNC) {
                let name = btf.string(ty.name);
                if wanted.contains(name) {
                    // The first wins: vmlinux BTF has no two types of one kind and name that differ
                    // and are both wanted here.
                    let id = u32::try_from(btf.starts.len()).unwrap_or(u32::MAX);
                    btf.named.entry((ty.kind, name)).or_insert(id);
                }
            }
            btf.starts.push(u32::try_from(start).map_err(|_| BtfError::Truncated(start))?);
            start += TYPE_LEN + trailer_len(&ty, btf.starts.len() - 1)?;
        }
        Ok(btf)
    }

    /// Byte offset of `struct.member[.member…]`, or with a `:bit` at the end the number of the
    /// bit in that byte; of `struct:size` its size. `None` where this kernel has no such field.
    pub(crate) fn offset(&self, path: &str) -> Option<u32> {
        if let Some(name) = path.strip_suffix(":size") {
            return Some(self.type_of(self.named(KIND_STRUCT, name)?)?.size_or_id);
        }
        let (path, wants_bit) = match path.strip_suffix(":bit") {
            Some(path) => (path, true),
            None => (path, false),
        };
        let mut names = path.split('.');
        let mut ty = self.named(KIND_STRUCT, names.next()?)?;
        let mut bit = 0;
        for name in names {
            let place = self.member(ty, name.as_bytes(), 0)?;
            bit += place.bit;
            ty = place.ty;
        }
        Some(if wants_bit { bit % 8 } else { bit / 8 })
    }

    /// Every offset the programs want.
    pub(crate) fn offsets(&self) -> Offsets {
        Offsets::from_values(|index| {
            Offsets::PATHS.get(index).and_then(|path| self.offset(path)).unwrap_or(ABSENT)
        })
    }

    /// How many arguments a function takes; `None` where the kernel has none of that name, or has
    /// it compiled into its callers.
    pub(crate) fn arguments(&self, function: &str) -> Option<u32> {
        let function = self.type_of(self.named(KIND_FUNC, function)?)?;
        self.parameters(function.size_or_id)
    }

    /// How many arguments a tracepoint has.
    pub(crate) fn tracepoint_arguments(&self, name: &str) -> Option<u32> {
        // typedef void (*btf_trace_NAME)(void *, …); the first is the tracepoint's own.
        let typedef = self.type_of(self.named(KIND_TYPEDEF, &format!("btf_trace_{name}"))?)?;
        let pointer = self.type_of(typedef.size_or_id)?;
        self.parameters(pointer.size_or_id)?.checked_sub(1)
    }

    /// Whether an enum has an enumerator.
    pub(crate) fn has_enumerator(&self, name: &str, enumerator: &str) -> bool {
        let Some(ty) = self.named(KIND_ENUM, name).and_then(|id| self.type_of(id)) else {
            return false;
        };
        (0..ty.members as usize).any(|index| {
            u32_at(self.types, ty.start + TYPE_LEN + index * 8)
                .is_ok_and(|name| self.string(name) == enumerator.as_bytes())
        })
    }

    /// A BTF in which the functions and typedefs that were wanted have the ids they have here, and
    /// everything else is a pointer to nothing. aya looks ids up by name, and parsing all types to
    /// structures for that costs 10 ms and 15 MB.
    pub(crate) fn names_and_ids(&self) -> Vec<u8> {
        const KIND_POINTER: u32 = 2;
        const HEADER: u32 = 24;
        let mut wanted: Vec<_> = self
            .named
            .iter()
            .filter(|((kind, _), _)| matches!(*kind, KIND_FUNC | KIND_TYPEDEF))
            .map(|((kind, name), id)| (*id, *kind, *name))
            .collect();
        wanted.sort_unstable();
        let (mut types, mut strings) = (Vec::new(), vec![0]);
        let mut push = |name: usize, kind: u32| {
            let name = u32::try_from(name).unwrap_or(0);
            for word in [name, kind << 24, 0] {
                types.extend_from_slice(&word.to_ne_bytes());
            }
        };
        let mut next = 1;
        for (id, kind, name) in wanted {
            (next..id).for_each(|_| push(0, KIND_POINTER));
            push(strings.len(), kind);
            strings.extend_from_slice(name);
            strings.push(0);
            next = id + 1;
        }
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let mut blob = Vec::with_capacity(HEADER as usize + types.len() + strings.len());
        blob.extend_from_slice(&MAGIC.to_ne_bytes());
        blob.extend_from_slice(&[1, 0]);
        for word in [HEADER, 0, len(&types), len(&types), len(&strings)] {
            blob.extend_from_slice(&word.to_ne_bytes());
        }
        blob.extend_from_slice(&types);
        blob.extend_from_slice(&strings);
        blob
    }

    fn parameters(&self, id: u32) -> Option<u32> {
        let proto = self.type_of(id)?;
        (proto.kind == KIND_FUNC_PROTO).then_some(proto.members)
    }

    fn named(&self, kind: u32, name: &str) -> Option<u32> {
        self.named.get(&(kind, name.as_bytes())).copied()
    }

    fn type_of(&self, id: u32) -> Option<Type> {
        let start = *self.starts.get(id as usize).filter(|_| id != 0)?;
        self.type_at(start as usize).ok()
    }

    /// The member of a structure, looking through unnamed ones.
    fn member(&self, id: u32, name: &[u8], depth: u32) -> Option<Place> {
        if depth > MAX_DEPTH {
            return None;
        }
        let ty = self.aggregate(id)?;
        for index in 0..ty.members as usize {
            let start = ty.start + TYPE_LEN + index * 12;
            let member_name = self.string(u32_at(self.types, start).ok()?);
            let member_type = u32_at(self.types, start + 4).ok()?;
            let raw = u32_at(self.types, start + 8).ok()?;
            // With the flag the upper 8 bits are the size of a bit field.
            let bit = if ty.kind_flag { raw & 0x00ff_ffff } else { raw };
            if member_name == name {
                return Some(Place { bit, ty: member_type });
            }
            if member_name.is_empty()
                && let Some(inner) = self.member(member_type, name, depth + 1)
            {
                return Some(Place { bit: bit + inner.bit, ..inner });
            }
        }
        None
    }

    /// The structure, union or structure of an array behind typedefs and qualifiers.
    fn aggregate(&self, mut id: u32) -> Option<Type> {
        for _ in 0..MAX_DEPTH {
            let ty = self.type_of(id)?;
            match ty.kind {
                KIND_STRUCT | KIND_UNION => return Some(ty),
                // typedef, volatile, const, restrict, type tag
                8..=11 | 18 => id = ty.size_or_id,
                _ => return None,
            }
        }
        None
    }

    fn type_at(&self, start: usize) -> Result<Type, BtfError> {
        let info = u32_at(self.types, start + 4)?;
        Ok(Type {
            name: u32_at(self.types, start)?,
            kind: info >> 24 & 0x1f,
            kind_flag: info >> 31 == 1,
            members: info & 0xffff,
            size_or_id: u32_at(self.types, start + 8)?,
            start,
        })
    }

    fn string(&self, offset: u32) -> &'a [u8] {
        let tail = self.strings.get(offset as usize..).unwrap_or_default();
        tail.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

/// The names of the structures that [`Offsets`] needs.
pub(crate) fn wanted_structs() -> Vec<&'static str> {
    let mut names: Vec<_> =
        Offsets::PATHS.iter().filter_map(|path| path.split(['.', ':']).next()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Bytes after the fixed part of a type.
fn trailer_len(ty: &Type, id: usize) -> Result<usize, BtfError> {
    let members = ty.members as usize;
    Ok(match ty.kind {
        // int, var, decl tag
        1 | 14 | 17 => 4,
        // pointer, forward, typedef, volatile, const, restrict, func, float, type tag
        2 | 7..=KIND_FUNC | 16 | 18 => 0,
        KIND_ARRAY => 12,
        // struct, union, data section, enum64
        KIND_STRUCT | KIND_UNION | 15 | 19 => members * 12,
        // enum, func prototype
        KIND_ENUM | KIND_FUNC_PROTO => members * 8,
        kind => return Err(BtfError::Kind { id, kind }),
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    let chunk = bytes.get(at..).and_then(|tail| tail.first_chunk::<4>());
    chunk.map(|chunk| u32::from_ne_bytes(*chunk)).ok_or(BtfError::Truncated(at))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, BtfError> {
    let chunk = bytes.get(at..).and_then(|tail| tail.first_chunk::<2>());
    chunk.map(|chunk| u16::from_ne_bytes(*chunk)).ok_or(BtfError::Truncated(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A builder of small BTF blobs.
    #[derive(Default)]
    struct Blob {
        types: Vec<u8>,
        strings: Vec<u8>,
    }

    impl Blob {
        fn new() -> Self {
            Self { types: Vec::new(), strings: vec![0] }
        }

        fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = u32::try_from(self.strings.len()).unwrap();
            self.strings.extend_from_slice(name.as_bytes());
            self.strings.push(0);
            at
        }

        fn ty(&mut self, name: &str, info: u32, size: u32, trailer: &[u32]) {
            let name = self.name(name);
            for word in [name, info, size].iter().chain(trailer) {
                self.types.extend_from_slice(&word.to_ne_bytes());
            }
        }

        fn bytes(&self) -> Vec<u8> {
            let mut out = Vec::new();
            out.extend_from_slice(&0xeb9f_u16.to_ne_bytes());
            out.extend_from_slice(&[1, 0]);
            let (types, strings) = (
                u32::try_from(self.types.len()).unwrap(),
                u32::try_from(self.strings.len()).unwrap(),
            );
            for word in [24, 0, types, types, strings] {
                out.extend_from_slice(&word.to_ne_bytes());
            }
            out.extend_from_slice(&self.types);
            out.extend_from_slice(&self.strings);
            out
        }
    }

    fn sample() -> Vec<u8> {
        let mut blob = Blob::new();
        blob.ty("int", 1 << 24, 4, &[32]); // 1
        let (a, b) = (blob.name("a"), blob.name("b"));
        blob.ty("", 5 << 24 | 2, 8, &[a, 1, 0, b, 1, 32]); // 2: an unnamed union
        blob.ty("alias_t", 8 << 24, 2, &[]); // 3: typedef of it
        let (x, flag, named) = (blob.name("x"), blob.name("flag"), blob.name("named"));
        // 4: struct with an unnamed member at 64 bits, a 1-bit field at bit 133, and a named one
        blob.ty(
            "outer",
            1 << 31 | 4 << 24 | 4,
            40,
            &[x, 1, 0, 0, 3, 64, flag, 1, 1 << 24 | 0x85, named, 3, 192],
        );
        blob.bytes()
    }

    #[test]
    fn finds_fields_through_unnamed_members_typedefs_and_bit_fields() {
        let bytes = sample();
        let btf = Btf::index(&bytes, &["outer"]).unwrap();
        assert_eq!(btf.offset("outer.x"), Some(0));
        assert_eq!(btf.offset("outer.b"), Some(12));
        assert_eq!(btf.offset("outer.named.b"), Some(28));
        assert_eq!(btf.offset("outer.flag"), Some(16));
        assert_eq!(btf.offset("outer.flag:bit"), Some(5));
        assert_eq!(btf.offset("outer:size"), Some(40));
        assert_eq!(btf.offset("outer.nothing"), None);
        assert_eq!(btf.offset("other.x"), None);
        assert_eq!(btf.offset("outer.x.deeper"), None);
    }

    #[test]
    fn functions_tracepoints_and_enums_are_found_by_name() {
        let mut blob = Blob::new();
        blob.ty("int", 1 << 24, 4, &[32]); // 1
        let (a, b) = (blob.name("a"), blob.name("b"));
        blob.ty("", 13 << 24 | 2, 1, &[a, 1, b, 1]); // 2: int (int a, int b)
        blob.ty("alloc_fd", 12 << 24, 2, &[]); // 3
        blob.ty("", 2 << 24, 2, &[]); // 4: pointer to it
        blob.ty("btf_trace_done", 8 << 24, 4, &[]); // 5
        blob.ty("helpers", 6 << 24 | 2, 4, &[a, 0, b, 1]); // 6
        blob.ty("odd", 12 << 24, 1, &[]); // 7: a function without a prototype
        let bytes = blob.bytes();
        let btf = Btf::index(&bytes, &["alloc_fd", "btf_trace_done", "helpers", "odd"]).unwrap();
        assert_eq!(btf.arguments("alloc_fd"), Some(2));
        let ids = btf.names_and_ids();
        let ids = Btf::index(&ids, &["alloc_fd", "btf_trace_done", "helpers"]).unwrap();
        assert_eq!(ids.named(KIND_FUNC, "alloc_fd"), Some(3));
        assert_eq!(ids.named(KIND_TYPEDEF, "btf_trace_done"), Some(5));
        assert_eq!(ids.named(KIND_ENUM, "helpers"), None);
        assert_eq!(btf.arguments("odd"), None);
        assert_eq!(btf.arguments("int"), None);
        assert_eq!(btf.tracepoint_arguments("done"), Some(1));
        assert_eq!(btf.tracepoint_arguments("other"), None);
        assert!(btf.has_enumerator("helpers", "b") && !btf.has_enumerator("helpers", "c"));
    }

    #[test]
    fn any_prefix_and_any_flip_gives_an_error_or_an_answer() {
        let bytes = sample();
        for end in 0..bytes.len() {
            if let Ok(btf) = Btf::index(&bytes[..end], &["outer"]) {
                let _ = btf.offset("outer.named.b");
            }
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 4, 0x7f, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                if let Ok(btf) = Btf::index(&bytes, &["outer"]) {
                    let _ = btf.offset("outer.named.b");
                }
            }
        }
        assert_eq!(Btf::index(b"\x7fELF", &[]).err(), Some(BtfError::Magic(0x457f)));
    }

    #[test]
    fn a_type_that_contains_itself_ends() {
        let mut blob = Blob::new();
        blob.ty("", 5 << 24 | 1, 8, &[0, 2, 0]); // 1: an unnamed union around type 2
        blob.ty("outer", 4 << 24 | 1, 8, &[0, 1, 0]); // 2: around type 1
        let bytes = blob.bytes();
        let btf = Btf::index(&bytes, &["outer"]).unwrap();
        assert_eq!(btf.offset("outer.x"), None);
    }
}
