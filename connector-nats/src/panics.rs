//! Panics of the client library: its tasks end over input that it did not expect, and nothing else does.
//!
//! [`crate::connect`] replaces the client, so such a panic is no crash: it is logged as an event instead of being
//! printed. All other panics are left to the hook that was installed before.

use std::panic::PanicHookInfo;
use std::sync::Once;

use tracing::info;

/// A part of the path of each of the library's source files.
const LIBRARY: &str = "/async-nats-";

/// From the first call on panics inside of the client library are logged.
pub(crate) fn announce_those_of_the_client() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| match place_in_the_library(panic) {
            Some(place) => {
                let reason = panic.payload_as_str().unwrap_or_default();
                info!(place, reason, "the NATS client library gives up over what a server sent");
            }
            None => others(panic),
        }));
    });
}

fn place_in_the_library(panic: &PanicHookInfo<'_>) -> Option<String> {
    let location = panic.location()?;
    let (_, file) = location.file().rsplit_once(LIBRARY)?;
    Some(format!("async-nats-{file}:{}", location.line()))
}
