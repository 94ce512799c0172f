-- The log is in parts on PostgreSQL only.
SELECT 1;
