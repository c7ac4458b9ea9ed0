//! Reduces a schema to the types that a message refers to: the smallest set of files that describes
//! them all.

use std::collections::BTreeSet;

use prost_reflect::prost_types::{DescriptorProto, FileDescriptorProto};
use prost_reflect::{DescriptorPool, FileDescriptor, Kind, MessageDescriptor};

use super::bare;

/// A message of this type can contain any other message of the schema.
const ANY: &str = "google.protobuf.Any";

/// Returns the files that the message's file needs, each with only the messages and enums that the
/// message refers to.
pub(super) fn prune(pool: &DescriptorPool, message: &MessageDescriptor) -> Vec<FileDescriptorProto> {
    let needed = Needed::of(message);
    if needed.0.contains(ANY) {
        return pool.files().map(|file| bare(file.file_descriptor_proto())).collect();
    }
    let mut files = Vec::new();
    collect(&message.parent_file(), &mut BTreeSet::new(), &mut files);
    files.iter().map(|file| needed.only(file)).collect()
}

/// Collects a file and all its imports, imports first.
fn collect(file: &FileDescriptor, seen: &mut BTreeSet<String>, files: &mut Vec<FileDescriptor>) {
    if seen.insert(file.name().to_owned()) {
        for import in file.dependencies() {
            collect(&import, seen, files);
        }
        files.push(file.clone());
    }
}

/// The full names of the outermost messages and enums that are needed.
struct Needed(BTreeSet<String>);

impl Needed {
    fn of(message: &MessageDescriptor) -> Needed {
        let mut names = BTreeSet::new();
        let mut open = vec![outermost(message)];
        while let Some(message) = open.pop() {
            if names.insert(message.full_name().to_owned()) {
                follow(&message, &mut names, &mut open);
            }
        }
        Needed(names)
    }

    fn only(&self, file: &FileDescriptor) -> FileDescriptorProto {
        let mut only = bare(file.file_descriptor_proto());
        let package = file.package_name();
        let is_needed = |name: &str| {
            if package.is_empty() { self.0.contains(name) } else { self.0.contains(&format!("{package}.{name}")) }
        };
        only.message_type.retain(|message| is_needed(message.name()));
        only.enum_type.retain(|descriptor| is_needed(descriptor.name()));
        only.extension.clear();
        only.message_type.iter_mut().for_each(drop_extensions);
        only
    }
}

/// Collects the types of a message's fields, and of the fields of messages declared in it.
fn follow(message: &MessageDescriptor, names: &mut BTreeSet<String>, open: &mut Vec<MessageDescriptor>) {
    for field in message.fields() {
        match field.kind() {
            Kind::Message(message) => open.push(outermost(&message)),
            Kind::Enum(descriptor) => match descriptor.parent_message() {
                Some(message) => open.push(outermost(&message)),
                None => {
                    names.insert(descriptor.full_name().to_owned());
                }
            },
            _ => {}
        }
    }
    message.child_messages().for_each(|child| follow(&child, names, open));
}

fn outermost(message: &MessageDescriptor) -> MessageDescriptor {
    let mut message = message.clone();
    while let Some(parent) = message.parent_message() {
        message = parent;
    }
    message
}

/// Removes extensions of other messages. Their targets may be gone, and no column comes from them.
fn drop_extensions(message: &mut DescriptorProto) {
    message.extension.clear();
    message.nested_type.iter_mut().for_each(drop_extensions);
}
