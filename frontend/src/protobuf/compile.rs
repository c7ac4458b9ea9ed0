//! The bytes of a schema → descriptors. It is a `FileDescriptorSet`, or the text of one `.proto` file; which, its bytes tell.

use std::path::{Component, Path, PathBuf};

use prost::Message;
use prost_reflect::prost_types::FileDescriptorSet;
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::fetch::Location;
use crate::error::{Error, sqlstate};

/// Braces within each other; the compiler recurses into them.
const NESTING_MAX: usize = 100;
/// A file that is imported may be so large.
const IMPORT_BYTES_MAX: u64 = 1 << 20;

pub(super) fn compile(bytes: &[u8], location: &Location) -> Result<FileDescriptorSet, Error> {
    if bytes.is_empty() {
        return Err(invalid(location, "it is empty"));
    }
    if let Some(text) = text(bytes) {
        return compile_text(text, location);
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(invalid(location, "it is text in UTF-16").with_hint("save it as UTF-8"));
    }
    FileDescriptorSet::decode(bytes).map_err(|_| {
        invalid(location, "it is neither the text of a .proto file nor a FileDescriptorSet")
            .with_hint("make one with protoc --include_imports --descriptor_set_out=schema")
    })
}

/// The bytes as text, if that is what they are: a set of descriptors is full of control characters.
fn text(bytes: &[u8]) -> Option<&str> {
    let is_binary = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    str::from_utf8(bytes).ok().filter(|_| !bytes.iter().any(is_binary)).map(without_mark)
}

/// A text without the byte order mark that some editors put before it. `protoc` takes it, too.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn compile_text(text: &str, location: &Location) -> Result<FileDescriptorSet, Error> {
    check_nesting(text, location)?;
    let name = location.file_name();
    let mut files = ChainFileResolver::new();
    files.add(Own { name: name.clone(), text: text.to_owned(), folder: location.folder().map(Path::to_path_buf) });
    files.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(files);
    compiler.include_imports(true).include_source_info(false);
    match compiler.open_file(&name) {
        Ok(compiler) => Ok(compiler.file_descriptor_set()),
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

/// The file itself, and its neighbours.
struct Own {
    name: String,
    text: String,
    folder: Option<PathBuf>,
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
        let text = is_small.then(|| std::fs::read_to_string(&path).ok()).flatten();
        let text = text.ok_or_else(|| protox::Error::file_not_found(name))?;
        if check_nesting(&text, &Location::File(path)).is_err() {
            return Err(protox::Error::new(std::io::Error::other("an import is nested too deeply")));
        }
        File::from_source(name, without_mark(&text))
    }
}
