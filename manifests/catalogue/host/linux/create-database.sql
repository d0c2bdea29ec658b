-- For the site's own PostgreSQL 14 or newer: sudo -u postgres psql -f create-database.sql
-- Source: docs preparations.rst
CREATE USER "{{ .Values.databaseUser }}" WITH PASSWORD {{ sql .Secrets.databasePassword }};
CREATE DATABASE "{{ .Values.databaseName }}" WITH OWNER "{{ .Values.databaseUser }}" ENCODING 'UTF8' TEMPLATE template0;
\c "{{ .Values.databaseName }}"
ALTER SCHEMA public OWNER TO "{{ .Values.databaseUser }}";
GRANT USAGE, CREATE ON SCHEMA public TO "{{ .Values.databaseUser }}";
