//! Which bytes of an ELF program are its code: what the build puts into the manifest and what
//! `cvm-init` compares its own memory with.

use cvm_base::{Bytes32, Explain, sha256};
use object::{
    Endianness,
    elf::{FileHeader64, PF_W, PF_X, PT_LOAD, ProgramFlags},
    read::elf::{FileHeader as _, ProgramHeader as _},
};

/// The executable segment of a program: the one `PT_LOAD` with `PF_X`.
///
/// Exactly the bytes `offset .. offset + length` of the file; the kernel maps them unchanged at
/// `load address + address`. Other bytes of their first and last pages are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeSegment {
    /// First byte in the file (`p_offset`).
    pub offset: u64,
    /// Address relative to where the program is loaded (`p_vaddr`).
    pub address: u64,
    /// Bytes (`p_filesz`, equal to `p_memsz`).
    pub length: u64,
}

/// Why a program has no code segment to measure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Not a little-endian 64-bit ELF file, or a damaged one.
    #[error("the program is not a readable 64-bit ELF file: {0}")]
    NotElf(&'static str),
    /// Not exactly one executable segment, or one that is also writable or has no file bytes.
    #[error("the program has {0}, expected exactly one executable segment that is not writable")]
    Segments(&'static str),
}

impl Explain for CodeError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotElf(_) => "ELF-001",
            Self::Segments(_) => "ELF-002",
        }
    }

    fn help(&self) -> String {
        "build cvm-init with `cargo build --release -p cvm-init` and the stock linker flags".into()
    }
}

/// Finds the executable segment of an ELF file.
pub fn code_segment(elf: &[u8]) -> Result<CodeSegment, CodeError> {
    const UNREADABLE: CodeError = CodeError::NotElf("its headers reach outside the file");
    let header =
        FileHeader64::<Endianness>::parse(elf).map_err(|_| CodeError::NotElf("no ELF header"))?;
    let endian = header.endian().map_err(|_| CodeError::NotElf("unknown byte order"))?;
    let mut code = None;
    for segment in header.program_headers(endian, elf).map_err(|_| UNREADABLE)? {
        let flags = segment.p_flags(endian);
        if segment.p_type(endian) != PT_LOAD || flags & PF_X == ProgramFlags(0) {
            continue;
        }
        if flags & PF_W != ProgramFlags(0) {
            return Err(CodeError::Segments("a segment that is writable and executable"));
        }
        let (offset, length) = segment.file_range(endian);
        if length == 0 || length != segment.p_memsz(endian) {
            return Err(CodeError::Segments("an executable segment that is not in the file"));
        }
        segment.data(endian, elf).map_err(|()| UNREADABLE)?;
        if code.replace(CodeSegment { offset, address: segment.p_vaddr(endian), length }).is_some()
        {
            return Err(CodeError::Segments("several executable segments"));
        }
    }
    code.ok_or(CodeError::Segments("no executable segment"))
}

/// SHA-256 of the executable segment's bytes in the file: the manifest's `init_code_sha256`.
pub fn code_sha256(elf: &[u8]) -> Result<Bytes32, CodeError> {
    let segment = code_segment(elf)?;
    // `code_segment` has seen that these bytes exist.
    let end = segment.offset.saturating_add(segment.length);
    elf.get(segment.offset as usize..end as usize)
        .map(sha256)
        .ok_or(CodeError::NotElf("its code is cut off"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_program() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn the_code_in_memory_is_the_code_in_the_file() {
        let elf = own_program();
        let segment = code_segment(&elf).unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let exe = std::env::current_exe().unwrap();
        let line = maps
            .lines()
            .find(|l| l.contains(" r-xp ") && l.ends_with(exe.to_str().unwrap()))
            .unwrap();
        let fields: Vec<&str> = line.split_whitespace().collect();
        let start = u64::from_str_radix(fields[0].split('-').next().unwrap(), 16).unwrap();
        let file_offset = u64::from_str_radix(fields[2], 16).unwrap();
        let mut memory = vec![0; segment.length as usize];
        std::os::unix::fs::FileExt::read_exact_at(
            &std::fs::File::open("/proc/self/mem").unwrap(),
            &mut memory,
            start + segment.offset - file_offset,
        )
        .unwrap();
        assert_eq!(sha256(&memory), code_sha256(&elf).unwrap());
    }

    #[test]
    fn a_changed_instruction_changes_the_digest_and_other_bytes_do_not() {
        let mut elf = own_program();
        let (segment, before) = (code_segment(&elf).unwrap(), code_sha256(&elf).unwrap());
        *elf.last_mut().unwrap() ^= 1;
        assert_eq!(code_sha256(&elf).unwrap(), before);
        elf[(segment.offset + segment.length - 1) as usize] ^= 1;
        assert_ne!(code_sha256(&elf).unwrap(), before);
    }

    #[test]
    fn a_damaged_header_is_an_error() {
        let elf = own_program();
        assert_eq!(code_segment(b"#!/bin/sh").unwrap_err().code(), "ELF-001");
        assert!(code_segment(&elf[..200]).is_err());
        for position in 0..1024 {
            let mut changed = elf[..64 * 1024].to_vec();
            changed[position] ^= 0xff;
            let _ = code_sha256(&changed);
        }
    }
}
