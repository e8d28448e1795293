//! The version of Go that a program was built with: the linker leaves it in the ELF section
//! `.go.buildinfo` (cmd/link/internal/ld/data.go, debug/buildinfo).
//!
//! A few bounded reads of the file; anything that is not as expected is no Go program.

use std::{fs::File, os::unix::fs::FileExt};

const MAGIC: &[u8] = b"\xff Go buildinf:";
/// Go programs have about 30.
const MOST_SECTIONS: u64 = 1024;
const MOST_NAMES: u64 = 64 * 1024;
/// `go1.21.3 X:experiment`.
const MOST_VERSION: u64 = 128;

/// `go1.21.3`; `None` where it is no Go program, or one that was stripped of its sections.
pub(super) fn go_version(file: &File) -> Option<String> {
    let elf = Elf::read(file)?;
    let info = elf.section(file, b".go.buildinfo")?;
    let header = bytes(file, info.offset, 32)?;
    if !header.starts_with(MAGIC) {
        return None;
    }
    // Since Go 1.18 the string is in the section; before, a pointer to the string's header is.
    let version = if header[15] & 2 == 0 {
        if header[14] != 8 || header[15] != 0 {
            return None;
        }
        let string = elf.offset(file, u64_at(&header, 16)?)?;
        let string = bytes(file, string, 16)?;
        let length = u64_at(&string, 8)?.min(MOST_VERSION);
        bytes(file, elf.offset(file, u64_at(&string, 0)?)?, length)?
    } else {
        let length = u64::from(bytes(file, info.offset + 32, 1)?[0]);
        // A varint of one byte.
        if length >= 0x80 {
            return None;
        }
        bytes(file, info.offset + 33, length)?
    };
    let version = String::from_utf8(version).ok()?;
    (version.starts_with("go") || version.starts_with("devel")).then_some(version)
}

/// What is needed of an ELF header.
struct Elf {
    sections: Table,
    names: u16,
    segments: Table,
}

struct Table {
    offset: u64,
    size: u64,
    count: u64,
}

struct Section {
    offset: u64,
}

impl Elf {
    /// 64-bit little-endian, as everything that fdtrace runs beside.
    fn read(file: &File) -> Option<Self> {
        let header = bytes(file, 0, 64)?;
        if !header.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let table = |offset, size, count| {
            Some(Table {
                offset: u64_at(&header, offset)?,
                size: u64::from(u16_at(&header, size)?),
                count: u64::from(u16_at(&header, count)?).min(MOST_SECTIONS),
            })
        };
        let elf = Self {
            segments: table(32, 54, 56)?,
            sections: table(40, 58, 60)?,
            names: u16_at(&header, 62)?,
        };
        (elf.sections.size == 64 && elf.segments.size == 56).then_some(elf)
    }

    fn section(&self, file: &File, name: &[u8]) -> Option<Section> {
        let Table { offset, size, count } = self.sections;
        let headers = bytes(file, offset, size.checked_mul(count)?)?;
        let header = |index: u64| {
            let start = usize::try_from(index * size).ok()?;
            headers.get(start..start + 64)
        };
        let names = header(u64::from(self.names))?;
        let names = bytes(file, u64_at(names, 24)?, u64_at(names, 32)?.min(MOST_NAMES))?;
        let is_named = |header: &&[u8]| {
            let at = u32_at(header, 0).and_then(|at| usize::try_from(at).ok());
            let rest = at.and_then(|at| names.get(at..));
            rest.and_then(|rest| rest.split(|byte| *byte == 0).next()) == Some(name)
        };
        let found = (0..count).filter_map(header).find(is_named)?;
        Some(Section { offset: u64_at(found, 24)? })
    }

    /// Where in the file an address of the running program is from.
    fn offset(&self, file: &File, address: u64) -> Option<u64> {
        const LOAD: u32 = 1;
        let Table { offset, size, count } = self.segments;
        let headers = bytes(file, offset, size.checked_mul(count)?)?;
        headers.chunks_exact(56).find_map(|header| {
            let (offset, start) = (u64_at(header, 8)?, u64_at(header, 16)?);
            let within = address.checked_sub(start)?;
            let is_here = u32_at(header, 0)? == LOAD && within < u64_at(header, 32)?;
            is_here.then(|| offset.checked_add(within)).flatten()
        })
    }
}

fn bytes(file: &File, offset: u64, length: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// An ELF file with one section of that content, loaded at an address.
    fn program(info: &[u8], data: &[u8]) -> File {
        const NAMES: &[u8] = b"\0.shstrtab\0.go.buildinfo\0";
        const BASE: u64 = 0x0040_0000;
        let mut body = vec![0; 64 + 56];
        let info_at = body.len() as u64;
        body.extend(info);
        body.extend(data);
        let names_at = body.len() as u64;
        body.extend(NAMES);
        let sections_at = body.len() as u64;
        let mut section = |name: u32, offset: u64, size: u64| {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[24..32].copy_from_slice(&offset.to_le_bytes());
            header[32..40].copy_from_slice(&size.to_le_bytes());
            body.extend(header);
        };
        section(1, names_at, NAMES.len() as u64);
        section(11, info_at, info.len() as u64);
        body[..6].copy_from_slice(b"\x7fELF\x02\x01");
        body[32..40].copy_from_slice(&64_u64.to_le_bytes());
        body[40..48].copy_from_slice(&sections_at.to_le_bytes());
        for (at, value) in [(54, 56_u16), (56, 1), (58, 64), (60, 2), (62, 0)] {
            body[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        body[64..68].copy_from_slice(&1_u32.to_le_bytes());
        body[80..88].copy_from_slice(&BASE.to_le_bytes());
        body[96..104].copy_from_slice(&0x1000_u64.to_le_bytes());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&body).unwrap();
        file
    }

    fn header(flags: u8) -> Vec<u8> {
        let mut header = MAGIC.to_vec();
        header.extend([8, flags]);
        header.resize(32, 0);
        header
    }

    #[test]
    fn since_1_18() {
        let mut info = header(2);
        info.extend(b"\x08go1.18.3\0");
        assert_eq!(go_version(&program(&info, b"")).as_deref(), Some("go1.18.3"));
    }

    #[test]
    fn before_1_18() {
        let mut info = header(0);
        // The string's header follows, and the string after that.
        let string_at = 0x0040_0000_u64 + 64 + 56 + 32;
        info[16..24].copy_from_slice(&string_at.to_le_bytes());
        let data =
            [&(string_at + 16).to_le_bytes()[..], &8_u64.to_le_bytes(), b"go1.17.9"].concat();
        assert_eq!(go_version(&program(&info, &data)).as_deref(), Some("go1.17.9"));
    }

    #[test]
    fn no_go_program() {
        for info in [header(2), b"short".to_vec(), vec![0; 64]] {
            assert_eq!(go_version(&program(&info, b"")), None);
        }
        assert_eq!(go_version(&File::open(std::env::current_exe().unwrap()).unwrap()), None);
        assert_eq!(go_version(&File::open("/etc/passwd").unwrap()), None);
        assert_eq!(go_version(&File::open("/dev/null").unwrap()), None);
    }

    #[test]
    fn a_real_one() {
        if let Ok(go) = File::open("/usr/lib/go-1.19/bin/go") {
            assert!(go_version(&go).unwrap().starts_with("go1.19"));
        }
    }
}
