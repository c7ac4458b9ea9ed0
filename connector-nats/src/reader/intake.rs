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
        Some(status) => status_event(message, status.as_u16(), incarnation),
        // Not a delivery of this consumer. Whatever it is, the subscription is not to be relied on.
        None => Arrival::Event(Event::Suspect { incarnation, reason: Reason::Unsettled }),
    }
}

/// A number that the server tells with a status.
fn number(message: &Message, header: &str) -> Option<u64> {
    message.headers.as_ref()?.get(header)?.as_str().parse().ok()
}

fn status_event(message: &Message, status: u16, incarnation: Incarnation) -> Arrival {
    // What was left of a request.
    let unserved = number(message, "Nats-Pending-Messages");
    let ended = |end| Arrival::Event(Event::PullEnded { incarnation, unserved, end });
    let description = message.description.as_deref().unwrap_or_default().to_ascii_lowercase();
    match status {
        100 => {
            let delivered = number(message, "Nats-Last-Consumer").unwrap_or_default();
            Arrival::Event(Event::Heartbeat { incarnation, delivered })
        }
        404 | 408 => ended(PullEnd::Expired),
        409 if description.contains("consumer deleted") => Arrival::Event(Event::Taken { incarnation }),
        // Pinned to another client, or to none.
        423 => Arrival::Event(Event::Taken { incarnation }),
        409 if description.contains("exceeds maxbytes") => ended(PullEnd::Oversized),
        409 if description.contains("batch completed") => ended(PullEnd::Expired),
        409 if description.contains("exceeded") => ended(PullEnd::Refused),
        // Leadership change, server shutdown, push based.
        409 => Arrival::Event(Event::Suspect { incarnation, reason: Reason::Unsettled }),
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
        let heartbeat = |delivered| Event::Heartbeat { incarnation, delivered };
        assert_eq!(event(&status(100, "Idle Heartbeat", None)), heartbeat(0));
        let mut served = status(100, "Idle Heartbeat", None);
        served.headers.get_or_insert_default().insert("Nats-Last-Consumer", "7");
        assert_eq!(event(&served), heartbeat(7));
        assert_eq!(event(&status(408, "Request Timeout", Some("7"))), ended(Some(7), PullEnd::Expired));
        assert_eq!(event(&status(409, "Consumer Deleted", None)), Event::Taken { incarnation });
        assert_eq!(event(&status(423, "Nats-Wrong-Pin-Id", Some("4"))), Event::Taken { incarnation });
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
