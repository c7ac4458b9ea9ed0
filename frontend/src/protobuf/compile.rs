//! The bytes of a schema → descriptors. The bytes are a `FileDescriptorSet` or the text of one
//! `.proto` file; the bytes themselves tell which.

use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message;
use prost_reflect::prost_types::{FileDescriptorProto, FileDescriptorSet};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use weir_sql::error::{Error, sqlstate};

use super::fetch::Location;

/// The maximum nesting of braces; the compiler recurses into them.
const NESTING_MAX: usize = 100;
/// The maximum size of an imported file.
const IMPORT_BYTES_MAX: u64 = 1 << 20;

pub(super) fn compile(bytes: &[u8], location: &Location) -> Result<FileDescriptorSet, Error> {
    if bytes.is_empty() {
        return Err(invalid(location, "it is empty"));
    }
    if let Some(set) = descriptors(bytes) {
        return Ok(set);
    }
    let text = match text(bytes) {
        Ok(text) => text,
        Err((reason, hint)) => return Err(invalid(location, reason).with_hint(hint)),
    };
    compile_text(text, location)
}

/// Decodes the bytes as descriptors. A set begins with the key of the first file.
fn descriptors(bytes: &[u8]) -> Option<FileDescriptorSet> {
    let set = FileDescriptorSet::decode(bytes).ok().filter(|_| bytes.starts_with(b"\n"))?;
    set.file.iter().all(|file| file.name.is_some()).then_some(set)
}

/// Decodes the bytes as text, or returns their actual format and a hint. Like `protoc`, it accepts
/// a byte order mark at the beginning, and any bytes in comments: those that are not UTF-8 become
/// U+FFFD.
fn text(bytes: &[u8]) -> Result<Cow<'_, str>, (&'static str, &'static str)> {
    const MAKE: &str = "make one with protoc --include_imports --descriptor_set_out=schema";
    let is_utf8 = str::from_utf8(bytes).is_ok();
    let is_space = |byte: u8| byte.is_ascii_whitespace() || byte == b'\x0b';
    let is_binary = |byte: &u8| *byte == 0 || (!is_utf8 && byte.is_ascii_control() && !is_space(*byte));
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err(("it is text in UTF-16", "save it as UTF-8")),
        [0x1f, 0x8b, ..] => Err(("it is compressed by gzip", "decompress it")),
        _ if FileDescriptorProto::decode(bytes).is_ok_and(|file| file.name.is_some()) => {
            Err(("it is a FileDescriptorProto, and not a set of them", MAKE))
        }
        _ if bytes.iter().any(is_binary) => {
            Err(("it is neither the text of a .proto file nor a FileDescriptorSet", MAKE))
        }
        _ => Ok(String::from_utf8_lossy(bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes))),
    }
}

fn compile_text(text: Cow<'_, str>, location: &Location) -> Result<FileDescriptorSet, Error> {
    check_nesting(&text, location)?;
    let name = location.file_name();
    let repaired = Arc::new(AtomicBool::new(matches!(text, Cow::Owned(_))));
    let mut files = ChainFileResolver::new();
    files.add(Own {
        name: name.clone(),
        text: text.into_owned(),
        folder: location.folder().map(Path::to_path_buf),
        repaired: Arc::clone(&repaired),
    });
    files.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(files);
    compiler.include_imports(true).include_source_info(false);
    match compiler.open_file(&name) {
        Ok(compiler) => {
            let set = compiler.file_descriptor_set();
            // Comments are not part of the set.
            let matters = || set.encode_to_vec().windows(3).any(|bytes| bytes == "\u{fffd}".as_bytes());
            match repaired.load(Ordering::Relaxed) && matters() {
                true => Err(invalid(location, "it is not UTF-8 outside of comments").with_hint("save it as UTF-8")),
                false => Ok(set),
            }
        }
        Err(error) => {
            let failed = invalid(location, &error.to_string());
            Err(if error.is_file_not_found() {
                failed.with_hint(
                    "a .proto file may import Google's files, and if it is a file of the frontend its neighbours; \
                     otherwise make a set with protoc --include_imports --descriptor_set_out=schema",
                )
            } else {
                failed
            })
        }
    }
}

fn check_nesting(text: &str, location: &Location) -> Result<(), Error> {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'{' | b'[' | b'<' | b'(' => depth += 1,
            b'}' | b']' | b'>' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest > NESTING_MAX { Err(invalid(location, "it is nested too deeply")) } else { Ok(()) }
}

fn invalid(location: &Location, reason: &str) -> Error {
    Error::user(sqlstate::INVALID_PARAMETER_VALUE, format!("the schema at {location} is not valid: {reason}"))
}

/// The file itself and, for a file of the frontend, its neighbours.
struct Own {
    name: String,
    text: String,
    folder: Option<PathBuf>,
    /// True once a file has been read that is not UTF-8.
    repaired: Arc<AtomicBool>,
}

impl FileResolver for Own {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == self.name {
            return File::from_source(name, &self.text);
        }
        let stays_inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        let Some(folder) = self.folder.as_deref().filter(|_| stays_inside) else {
            return Err(protox::Error::file_not_found(name));
        };
        let path = folder.join(name);
        let is_small = std::fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() <= IMPORT_BYTES_MAX);
        let bytes = is_small.then(|| std::fs::read(&path).ok()).flatten();
        let bytes = bytes.ok_or_else(|| protox::Error::file_not_found(name))?;
        let refused = |reason: &str| protox::Error::new(std::io::Error::other(format!("import '{name}': {reason}")));
        let text = text(&bytes).map_err(|(reason, _)| refused(reason))?;
        if check_nesting(&text, &Location::File(path)).is_err() {
            return Err(refused("it is nested too deeply"));
        }
        self.repaired.fetch_or(matches!(text, Cow::Owned(_)), Ordering::Relaxed);
        File::from_source(name, &text)
    }
}
