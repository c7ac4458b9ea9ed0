//! The pin of a consumer that delivers to one client at a time: learnt from the first delivery, shown with every request
//! after it. Invariant: what reaches the table bears only the headers that it was published with.

use async_nats::HeaderMap;

/// The header with which the server says whom it delivers to.
const HEADER: &str = "Nats-Pin-Id";

/// The pin of a consumer that is being read.
#[derive(Debug, Default)]
pub(super) struct Pin(Option<String>);

impl Pin {
    /// What requests show, once it is known.
    pub(super) fn id(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Takes the server's header from a delivery. Whether the delivery was meant for this pin; the first one always is.
    pub(super) fn take_from(&mut self, headers: &mut Option<HeaderMap>) -> bool {
        let Some(all) = headers else { return false };
        // The server puts its own behind those of the same name that the message was published with.
        let Some(id) = all.get_last(HEADER) else { return false };
        let ours = match &self.0 {
            Some(known) => known == id.as_str(),
            None => {
                self.0 = Some(id.as_str().to_owned());
                true
            }
        };
        *headers = without_last(all);
        ours
    }
}

/// The headers without the last one of the server's name; nothing if none are left.
fn without_last(all: &HeaderMap) -> Option<HeaderMap> {
    let mut left = HeaderMap::new();
    for (name, values) in all.iter() {
        let text: &str = name.as_ref();
        let count = values.len() - usize::from(text == HEADER);
        for value in &values[..count] {
            left.append(name.clone(), value.clone());
        }
    }
    (!left.is_empty()).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Option<HeaderMap> {
        let mut map = HeaderMap::new();
        pairs.iter().for_each(|(name, value)| map.append(*name, *value));
        Some(map)
    }

    #[test]
    fn the_first_delivery_brings_the_pin_and_others_are_told_apart() {
        let mut pin = Pin::default();
        assert_eq!(pin.id(), None);
        let mut first = headers(&[(HEADER, "a")]);
        assert!(pin.take_from(&mut first));
        assert_eq!((first, pin.id()), (None, Some("a")));
        assert!(pin.take_from(&mut headers(&[(HEADER, "a")])));
        assert!(!pin.take_from(&mut headers(&[(HEADER, "b")])));
        assert!(!pin.take_from(&mut headers(&[("x", "a")])));
        assert!(!pin.take_from(&mut None));
    }

    #[test]
    fn what_a_message_was_published_with_stays() {
        let mut pin = Pin::default();
        let mut published = headers(&[("x", "1"), (HEADER, "theirs"), ("x", "2"), (HEADER, "server's")]);
        assert!(pin.take_from(&mut published));
        assert_eq!((pin.id(), published), (Some("server's"), headers(&[("x", "1"), ("x", "2"), (HEADER, "theirs")])));
    }
}
