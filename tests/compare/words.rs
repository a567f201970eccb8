//! What is not compared is named, and what is held is let go.
