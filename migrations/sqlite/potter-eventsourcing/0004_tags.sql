-- What an event is about beside its stream: an array of texts, NULL where there is none. The table
-- is the index of them; a trigger keeps the two in step.
ALTER TABLE potter_events ADD COLUMN tags TEXT;
CREATE TABLE potter_event_tags (
    tag             TEXT NOT NULL,
    global_position INTEGER NOT NULL,
    event_type      TEXT NOT NULL,
    PRIMARY KEY (tag, global_position)
) WITHOUT ROWID;
CREATE TRIGGER potter_events_tags AFTER INSERT ON potter_events WHEN NEW.tags IS NOT NULL
BEGIN
    INSERT INTO potter_event_tags (tag, global_position, event_type)
    SELECT value, NEW.global_position, NEW.event_type FROM json_each(NEW.tags);
END;
