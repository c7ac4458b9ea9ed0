//! Late views: how a view gets the rows that its input had before the view was made.
//!
//! Each actor of the view reads the vnodes of its slot. At the beginning of an epoch it reads a
//! page of the epoch before, once that one is sealed, and moves the cursor of the page's vnode
//! behind it. Then the cursors stand still until the epoch ends: changes of rows at or below the
//! cursor pass, changes above it are dropped, because a later page brings these rows as they are
//! then.
//!
//! If the epoch before is not sealed yet, no page is read and the changes pass against the same
//! cursors. After [`SKIPS_MAX`] such epochs the actor waits for the seal, so that it gets ahead
//! under any load. That is no cycle: its own barrier of that epoch has left.
//!
//! Cursors are state, one a vnode: the actor writes those that moved with the epoch. A recovery or
//! a rescale takes them up where the committed epoch left them.
//!
//! Invariant: at every barrier the view has consumed exactly the rows at or below its cursors, as
//! of the epoch that the barrier ends.

use std::collections::BTreeMap;

use weir_common::ids::Epoch;

/// Epochs that may begin without a page before the actor waits for a seal.
pub const SKIPS_MAX: u32 = 8;

/// The cursors of one actor. `K`: a key of the input, ordered as its snapshot is read.
#[derive(Debug)]
pub struct Late<K> {
    cursors: BTreeMap<u16, Cursor<K>>,
    /// Epochs in a row that began without a page.
    skipped: u32,
}

/// How far a vnode has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor<K> {
    /// Nothing of it has been read.
    Start,
    /// Rows up to this key have been read.
    At(K),
    /// All rows have been read.
    End,
}

/// An actor's way to begin an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beginning<K> {
    /// All vnodes have been read.
    Through,
    /// It reads a page of the epoch before: rows of this vnode behind the cursor.
    Page(u16, Cursor<K>),
    /// It goes on without a page.
    Skip,
    /// It waits until the epoch before is sealed, and asks again.
    Wait,
}

impl<K: Clone + Ord> Late<K> {
    /// The cursors of the vnodes that the actor owns, as the committed epoch has them.
    pub fn new(cursors: impl IntoIterator<Item = (u16, Cursor<K>)>) -> Late<K> {
        Late { cursors: cursors.into_iter().collect(), skipped: 0 }
    }

    /// An epoch begins; `sealed` is the newest sealed epoch of the slot.
    pub fn begin(&mut self, epoch: Epoch, sealed: Epoch) -> Beginning<K> {
        let unread = self.cursors.iter().find(|(_, cursor)| **cursor != Cursor::End);
        let Some((vnode, cursor)) = unread else { return Beginning::Through };
        if sealed.next() >= epoch {
            self.skipped = 0;
            Beginning::Page(*vnode, cursor.clone())
        } else if self.skipped < SKIPS_MAX {
            self.skipped += 1;
            Beginning::Skip
        } else {
            Beginning::Wait
        }
    }

    /// A page of the vnode has been read up to here.
    pub fn moved(&mut self, vnode: u16, cursor: Cursor<K>) {
        self.cursors.insert(vnode, cursor);
    }

    /// How far a vnode has been read.
    ///
    /// # Panics
    /// If the vnode is not the actor's.
    pub fn cursor(&self, vnode: u16) -> &Cursor<K> {
        self.cursors.get(&vnode).expect("an actor asks for its own vnodes")
    }

    /// Returns true if a change of a row passes.
    ///
    /// # Panics
    /// If the vnode is not the actor's.
    pub fn passes(&self, vnode: u16, key: &K) -> bool {
        match self.cursor(vnode) {
            Cursor::Start => false,
            Cursor::At(read) => key <= read,
            Cursor::End => true,
        }
    }

    /// Returns true if all rows have been read.
    pub fn is_through(&self) -> bool {
        self.cursors.values().all(|cursor| *cursor == Cursor::End)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_pass_up_to_the_cursor_of_their_vnode() {
        let mut late = Late::new([(0, Cursor::Start), (1, Cursor::Start)]);
        assert!(!late.passes(0, &1));
        assert_eq!(late.begin(Epoch(5), Epoch(4)), Beginning::Page(0, Cursor::Start));
        late.moved(0, Cursor::At(7));
        assert!(late.passes(0, &7) && !late.passes(0, &8) && !late.passes(1, &7));
        assert_eq!(late.begin(Epoch(6), Epoch(5)), Beginning::Page(0, Cursor::At(7)));
        late.moved(0, Cursor::End);
        assert!(late.passes(0, &8));
        assert_eq!(late.begin(Epoch(7), Epoch(6)), Beginning::Page(1, Cursor::Start));
        late.moved(1, Cursor::End);
        assert!(late.is_through());
        assert_eq!(late.begin(Epoch(8), Epoch(0)), Beginning::Through);
    }

    #[test]
    fn an_actor_ahead_of_the_seal_skips_pages_and_waits_in_the_end() {
        let mut late = Late::new([(0, Cursor::<i64>::Start)]);
        for _ in 0..SKIPS_MAX {
            assert_eq!(late.begin(Epoch(9), Epoch(7)), Beginning::Skip);
        }
        assert_eq!(late.begin(Epoch(9), Epoch(7)), Beginning::Wait);
        assert_eq!(late.begin(Epoch(9), Epoch(8)), Beginning::Page(0, Cursor::Start));
        assert_eq!(late.begin(Epoch(10), Epoch(8)), Beginning::Skip, "the count begins anew");
    }
}
