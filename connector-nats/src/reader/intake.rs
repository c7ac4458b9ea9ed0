//! What arrives on a reader's subscription: deliveries, and the statuses with which the server answers pull requests.
//! Pure.

use async_nats::Message;

use crate::delivery::{Event, Incarnation, PullEnd, Reason};
use crate::reply::{Delivered, Form};

/// An arrival, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// A message of the stream.
    Delivery(Delivered),
    /// Something that the machine has to know.
    Event(Event),
    /// Nobody took the request: the consumer may be gone.
    NoResponders,
}

/// Understands an arrival. `form` is learnt from the first delivery.
///
/// The reply subject decides: only the server gives one of its own form. A status alone shows nothing, because whoever
/// publishes a message may put one into its headers, and must not thereby stop the reader.
pub(super) fn understand(message: &Message, incarnation: Incarnation, form: &mut Option<Form>) -> Arrival {
    let reply = message.reply.as_deref().unwrap_or_default();
    if form.is_none() {
        *form = Form::of(reply);
    }
    if let Some(delivered) = form.as_ref().and_then(|form| form.read(reply)) {
        return Arrival::Delivery(delivered);
    }
    match message.status {
        Some(status) => {
            let description = message.description.as_deref().unwrap_or_default();
            status_event(status.as_u16(), description, unserved(message), incarnation)
        }
        // Not a delivery of this consumer. Whatever it is, the subscription is not to be relied on.
        None => Arrival::Event(Event::Suspect { incarnation, reason: Reason::Unsettled }),
    }
}

/// What the server says was left of a request.
fn unserved(message: &Message) -> Option<u64> {
    message.headers.as_ref()?.get("Nats-Pending-Messages")?.as_str().parse().ok()
}

fn status_event(status: u16, description: &str, unserved: Option<u64>, incarnation: Incarnation) -> Arrival {
    let ended = |end| Arrival::Event(Event::PullEnded { incarnation, unserved, end });
    let description = description.to_ascii_lowercase();
    match status {
        100 => Arrival::Event(Event::Heartbeat { incarnation }),
        404 | 408 => ended(PullEnd::Expired),
        409 if description.contains("consumer deleted") => Arrival::Event(Event::Deleted { incarnation }),
        409 if description.contains("exceeds maxbytes") => ended(PullEnd::Oversized),
        409 if description.contains("batch completed") => ended(PullEnd::Expired),
        409 if description.contains("exceeded") => ended(PullEnd::Refused),
        // Leadership change, server shutdown, push based, pinned to another client.
        409 | 423 => Arrival::Event(Event::Suspect { incarnation, reason: Reason::Unsettled }),
        503 => Arrival::NoResponders,
        _ => ended(PullEnd::Refused),
    }
}

#[cfg(test)]
mod tests {
    use async_nats::{HeaderMap, StatusCode};

    use super::*;

    const INCARNATION: Incarnation = Incarnation(3);

    fn status(code: u16, description: &str, pending: Option<&str>) -> Message {
        let mut headers = HeaderMap::new();
        if let Some(pending) = pending {
            headers.insert("Nats-Pending-Messages", pending);
        }
        Message {
            subject: "_INBOX.x".into(),
            reply: None,
            payload: Default::default(),
            headers: Some(headers),
            status: Some(StatusCode::from_u16(code).expect("a status")),
            description: Some(description.to_owned()),
            length: 0,
        }
    }

    fn event(message: &Message) -> Event {
        match understand(message, INCARNATION, &mut None) {
            Arrival::Event(event) => event,
            other => panic!("{other:?} is no event"),
        }
    }

    #[test]
    fn statuses_are_told_apart() {
        let incarnation = INCARNATION;
        let ended = |unserved, end| Event::PullEnded { incarnation, unserved, end };
        assert_eq!(event(&status(100, "Idle Heartbeat", None)), Event::Heartbeat { incarnation });
        assert_eq!(event(&status(408, "Request Timeout", Some("7"))), ended(Some(7), PullEnd::Expired));
        assert_eq!(event(&status(409, "Consumer Deleted", None)), Event::Deleted { incarnation });
        let suspect = Event::Suspect { incarnation, reason: Reason::Unsettled };
        assert_eq!(event(&status(409, "Leadership Change", Some("1"))), suspect);
        assert_eq!(event(&status(409, "Message Size Exceeds MaxBytes", Some("3"))), ended(Some(3), PullEnd::Oversized));
        assert_eq!(event(&status(409, "Exceeded MaxWaiting", None)), ended(None, PullEnd::Refused));
        assert_eq!(event(&status(400, "Bad Request", None)), ended(None, PullEnd::Refused));
        assert_eq!(understand(&status(503, "", None), incarnation, &mut None), Arrival::NoResponders);
    }

    #[test]
    fn the_form_of_replies_is_learnt_from_the_first_delivery() {
        let mut message = status(408, "", None);
        message.status = None;
        message.reply = Some("$JS.ACK.s.c.1.5.6.7.8".into());
        let mut form = None;
        let expected = Delivered { stream_seq: 5, consumer_seq: 6, deliveries: 1, stored_ns: 7, pending: 8 };
        assert_eq!(understand(&message, INCARNATION, &mut form), Arrival::Delivery(expected));
        assert!(form.is_some());
        message.status = Some(StatusCode::TIMEOUT);
        assert_eq!(
            understand(&message, INCARNATION, &mut form),
            Arrival::Delivery(expected),
            "published with a status"
        );
        message.status = None;
        message.reply = Some("$JS.ACK.s.other.1.5.6.7.8".into());
        let suspect = Event::Suspect { incarnation: INCARNATION, reason: Reason::Unsettled };
        assert_eq!(understand(&message, INCARNATION, &mut form), Arrival::Event(suspect));
    }
}
