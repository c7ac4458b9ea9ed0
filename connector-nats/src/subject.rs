//! Subjects and their wildcards: `*` stands for one token, a trailing `>` for one or more.
//!
//! Owns the algebra that the checks of options and streams need: validity, covering, intersection. Pure.

/// Whether `pattern` is a subject that a stream or a filter can name, wildcards allowed.
pub fn is_valid(pattern: &str) -> bool {
    let tokens: Vec<&str> = pattern.split('.').collect();
    let last = tokens.len() - 1;
    tokens.iter().enumerate().all(|(i, token)| {
        !token.is_empty()
            && !token.contains(|c: char| c.is_whitespace() || c.is_control())
            && (*token != ">" || i == last)
            && (token.len() == 1 || !token.contains(['*', '>']))
    })
}

/// Whether every subject that `inner` matches is matched by `outer` too.
pub fn covers(outer: &str, inner: &str) -> bool {
    let mut outer = outer.split('.');
    let mut inner = inner.split('.');
    loop {
        match (outer.next(), inner.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(_), None) | (None, Some(_)) | (Some(_), Some(">")) => return false,
            (Some("*"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// What both patterns match, as a pattern; nothing if they have no subject in common.
pub fn intersect(a: &str, b: &str) -> Option<String> {
    let mut common: Vec<&str> = Vec::new();
    let mut a = a.split('.');
    let mut b = b.split('.');
    loop {
        match (a.next(), b.next()) {
            (None, None) => return Some(common.join(".")),
            (None, Some(_)) | (Some(_), None) => return None,
            (Some(">"), Some(token)) => {
                common.push(token);
                common.extend(b);
                return Some(common.join("."));
            }
            (Some(token), Some(">")) => {
                common.push(token);
                common.extend(a);
                return Some(common.join("."));
            }
            (Some("*"), Some(token)) | (Some(token), Some("*")) => common.push(token),
            (Some(x), Some(y)) if x == y => common.push(x),
            _ => return None,
        }
    }
}

/// The same subjects with as few patterns as covering allows, in a fixed order: what two filters are compared by.
pub fn normalise(patterns: &[String]) -> Vec<String> {
    let mut sorted: Vec<String> = patterns.to_vec();
    sorted.sort();
    sorted.dedup();
    let kept = sorted.iter().filter(|p| !sorted.iter().any(|q| q != *p && covers(q, p)));
    kept.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_cover_what_the_server_delivers() {
        for (outer, inner, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("a.b", "a.*", false),
            ("a.*", "a.>", false),
            (">", "a.*.c", true),
            ("*", "a.b", false),
        ] {
            assert_eq!(covers(outer, inner), expected, "{outer} covers {inner}");
        }
    }

    #[test]
    fn intersections_are_patterns() {
        assert_eq!(intersect("a.*", "*.b").as_deref(), Some("a.b"));
        assert_eq!(intersect("a.>", "a.*.c").as_deref(), Some("a.*.c"));
        assert_eq!(intersect("a.>", "a"), None);
        assert_eq!(intersect("a.b", "a.c"), None);
        assert_eq!(intersect(">", "x.*").as_deref(), Some("x.*"));
    }

    #[test]
    fn validity_follows_the_protocol() {
        for good in ["a", "a.b-c_d", "a.*", ">", "a.>"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", "a..b", ".a", "a.", "a b", "a.>.b", "a.b*", ">a"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }

    #[test]
    fn what_another_pattern_covers_is_left_out() {
        let patterns = ["b".to_owned(), "a.1".to_owned(), "a.*".to_owned(), "b".to_owned()];
        assert_eq!(normalise(&patterns), ["a.*", "b"]);
    }
}
