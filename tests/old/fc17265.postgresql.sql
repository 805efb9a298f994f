SELECT pg_catalog.set_config('search_path', '', false);
CREATE TABLE public.collections (
    name character varying(128) NOT NULL,
    id character varying(36) NOT NULL,
    embedding_model character varying(512) NOT NULL,
    dimension integer NOT NULL,
    chunk_size integer NOT NULL,
    chunk_overlap integer NOT NULL,
    created_at character varying(32) NOT NULL,
    sparse_model character varying(128) DEFAULT 'bm25-english'::character varying NOT NULL,
    engine character varying(16) DEFAULT 'edge'::character varying NOT NULL,
    physical character varying(36),
    indexed integer DEFAULT 0 NOT NULL,
    frozen double precision DEFAULT '0'::double precision NOT NULL
);
CREATE TABLE public.huey_counter (
    queue text NOT NULL,
    key text NOT NULL,
    value bigint DEFAULT 0 NOT NULL
);
CREATE TABLE public.huey_kv (
    queue text NOT NULL,
    key text NOT NULL,
    value bytea NOT NULL
);
CREATE TABLE public.huey_schedule (
    id bigint NOT NULL,
    queue text NOT NULL,
    data bytea NOT NULL,
    "timestamp" double precision NOT NULL
);
CREATE SEQUENCE public.huey_schedule_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.huey_schedule_id_seq OWNED BY public.huey_schedule.id;
CREATE TABLE public.huey_task (
    id bigint NOT NULL,
    queue text NOT NULL,
    data bytea NOT NULL,
    priority double precision DEFAULT 0.0 NOT NULL
);
CREATE SEQUENCE public.huey_task_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.huey_task_id_seq OWNED BY public.huey_task.id;
CREATE TABLE public.job_dependencies (
    job integer NOT NULL,
    waits_for integer NOT NULL
);
CREATE TABLE public.job_params (
    job integer NOT NULL,
    params text NOT NULL
);
CREATE TABLE public.job_rows (
    job integer NOT NULL,
    first integer NOT NULL,
    count integer NOT NULL,
    dimension integer NOT NULL,
    data bytea NOT NULL
);
CREATE TABLE public.job_schedules (
    owner character varying(128) NOT NULL,
    name character varying(128) NOT NULL,
    cron character varying(128) NOT NULL,
    timezone character varying(64) NOT NULL,
    type character varying(64) NOT NULL,
    params text NOT NULL,
    place character varying(64) NOT NULL,
    priority integer NOT NULL,
    next_at double precision NOT NULL,
    created_at character varying(32) NOT NULL
);
CREATE TABLE public.job_webhooks (
    job integer NOT NULL,
    url text NOT NULL,
    due_at double precision,
    tries integer NOT NULL,
    delivered_at character varying(32),
    error text
);
CREATE TABLE public.jobs (
    number integer NOT NULL,
    id character varying(36) NOT NULL,
    owner character varying(128) NOT NULL,
    type character varying(64) NOT NULL,
    status character varying(16) NOT NULL,
    place character varying(64) NOT NULL,
    priority integer NOT NULL,
    run_at double precision NOT NULL,
    blocked integer NOT NULL,
    followed integer NOT NULL,
    attempts integer NOT NULL,
    tries integer NOT NULL,
    worker character varying(64),
    token character varying(36),
    lease double precision,
    done integer NOT NULL,
    total integer NOT NULL,
    stage character varying(64) NOT NULL,
    reached integer NOT NULL,
    rate double precision,
    checkpoint text,
    version integer NOT NULL,
    result text,
    row_count integer NOT NULL,
    row_bytes integer NOT NULL,
    error text,
    idempotency_key character varying(255),
    fingerprint character varying(64),
    created_at character varying(32) NOT NULL,
    started_at character varying(32),
    finished_at character varying(32)
);
CREATE SEQUENCE public.jobs_number_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.jobs_number_seq OWNED BY public.jobs.number;
CREATE TABLE public.loose_collections (
    physical character varying(36) NOT NULL,
    engine character varying(16) NOT NULL,
    holder character varying(64) DEFAULT ''::character varying NOT NULL,
    job character varying(36) DEFAULT ''::character varying NOT NULL
);
ALTER TABLE ONLY public.huey_schedule ALTER COLUMN id SET DEFAULT nextval('public.huey_schedule_id_seq'::regclass);
ALTER TABLE ONLY public.huey_task ALTER COLUMN id SET DEFAULT nextval('public.huey_task_id_seq'::regclass);
ALTER TABLE ONLY public.jobs ALTER COLUMN number SET DEFAULT nextval('public.jobs_number_seq'::regclass);
INSERT INTO public.job_dependencies VALUES (4, 3);
INSERT INTO public.job_params VALUES (1, '{"texts":["a","b","c"],"model":null}');
INSERT INTO public.job_params VALUES (2, '{"documents":["x"],"collection":"hr_policies","chunk_size":33,"chunk_overlap":null,"sync":false,"plan":false}');
INSERT INTO public.job_params VALUES (3, '{"texts":["later"],"model":null}');
INSERT INTO public.job_params VALUES (4, '{"texts":["after"],"model":null}');
INSERT INTO public.job_rows VALUES (1, 0, 3, 256, '\x82e3143c1c353d3c1ee44dbd9e2f193d042437bcf3658a3d6468cfbdaaa60abd2b44593b088258bc88cda33bbdb61bbd28ac2e3c62961b3d5b6665bdc42c183ec721ef3c0424373d94ad7ebde2272dbc1a06fcbcc0ab723d27e6b73dca39cabc4a05653d385e1ebd4249a2bc9f3b56bc4584203ea5a515bb6d6a393c53aa223db9b5263dba9ec0bdac9b613dbb2aaebd79be87bdf94f99bd96f3a53df8ac453decef8dbcf29f133ea3f684bd85d86bbd085f35bde97a06bdd4de07bd0401143c1a6389bc2242efbcaf9099bd3947b8bdc6b885bc92fe6d3d1dd890bd20130fbe294f023d449b06be45be293c0eec97bd89b63d3cda0e5dbdb5c0ee3c07bce1bdf571c7bdee9e9ebcac1b92bd6216ebbd30e8213cf637bebd13ed8cbd59da773d6dc7e5bca02470bc91cf8dbce5bfd73b4b91d23bd0a309bd3ad3a5bcc65bf8bb2c2df33cb9fbec3d244e0d3d3798a7bcb9b5a6bd59718ebc3ff7bd3cda8e0dbc441bd6bccca294bcb76f7fbd7961fa3bde6c7e3dd18ca33dbb078bbde6622bbe97ffe23d6ad28ebcf809f23c4249a2bd80b4d3bc07bc613d992ea43d6d6ab9bd2809dbbda4df9ebdaa6c013cb5faf7bc98c5d93cd85f4c3cf5149bbddec98bbc6468cfbda926dabd33bad53c012f7fbd2f7f573c0424b73c1a86ac3cb97b9d3d05ea2dbd0aeba23c819ded3c532af2bdb4910e3d9bba913c18d79bbd333a06be2fff87bd9e755f3d8c2b453d02d2523c7d5c81bdf7c32b3d43555f3dc3a0aa3d3e31473db079333df972bcbd857bbf3de9d7b23c3824953d720e823b0da6703c9f3bd6bc07bce1bd67ba33bc7aa7a1bb14d6a6bd27e6b7bc70bc9d3da353b13a3ff73d3d22c21f3e7649003e7e2866bdc92d8dbdfe16853db57aa83cdd0395bc01afaf3d5559b33d1ec12a3d31d1bbbcecef8dbd1ba9cfbd2b21b63d6c811f3d79044ebde76e683d22c29fbd2388963db4d7d43cd18c233cdaeb393efb44f0bba1a4203d176ed13d8cce98bd5cac0cbdb686653d44f8b2bd46a7c3bdaaa68abc2a7e62bcaa0ff43cb59dcb3d0d26a13c57e5a0bd5092473aedfb4abd05ea2d3d0eec17bd0802093c7e05433d92db4abc24ce5c3cb20521bda81a9d3a48d6843c1b4c23bcaaec50bc0bf75fbd443e793dd0a3893b46ca663c990b813d3ad3a5bc1dd8903c4e06dabd6e0d0d3d09484fba4733b1bdf65ae13cd776b2bc40bd343e1834483d67dd56bcd925433cdfb2a53dca73d3bdeec1413d8c2bc5bc1b4ca3bbfbdb86bde8345f3d35e9163db4b4b1ba952daf3b8057a7bc6697903caaa60a3e61f3c73c91f2b03b79be07bd174bae3c06b0243d5092c7bc3798a73db892833dd4012bbdff39283d10becb3aca39cabd14d6263df6fd34bdf7a0083d652e46bd8e7da9bc398dfe3c940a0c3eed18003edfb2253d297225bd4cb475bde9d7b2bcaf11fdbd6e3eb6bc58be98bda9c3213d7751b33dc397a33d07b90f3d685b0f3e75b6a83dcf4b6a3dc7eb873cb02fccbd2b887e3dc76284bc3b25753d8eef9fbd0e253a3de1836bbc95c67e3b29f93b3c5d24843cdcd09abc2dd623bd87772d3e16cd823ce6e9d63c7a1c94bd34424e3dc9f1c6bd2051733d5ea1bf3d105590bc4c75863dbd3d80bdc95c7b3deb3d3b3ec379543da94ca5bc829a45bd94de8e3db9cbcc3dd64ce03d8ee3d73d051e853d5c9b80bd5ead07bd7edb2c3ed428d23d5829cd3da3c86a3cea4983bcff047fbdf574463c8bcb11beb36561bd3efc1dbd2b88fe3c275e31be9107663cfcec38bd8b36463d3a3d85bb7a1c14beff99cabcc59de23d457410bd6519323d49bc2c3dd546a13dd3341abc1da4e13dbf433fbc01caa0bd78ceeebb2870b83cf556f73de2bf89bcb1ca56bdf82da0bc0400b6bd5c71e93ae08f333dee7350bd4815da3d6649083d6fc7b9b972929a3c18f1103d91ba00bd4bec82bd60d195381db029bc1b151fbd51b15a3cc6afe9bcc2fc983df23eb1bc0c8a2fbdc6bb31bcda17c13d0c8aaf3c08bfce3dc1497ebb136dd63d115bcf3dec6d913c685b0fb991ba003926d52d3ea2b663bd2964703d18d3c1bc67d20b3da616103c425082bc7498593dfa335f3d6ca32bbbce39e3bc95c67e3c1055103c6c1aa8bc4721a2bda47b853d5a4ddb3d15afb33d99af2e3d75b6a83dd0f23cbbcf4b6abd5d24843d545eecbcc968c33b8ddd183d197a14bd239f983baf88f93dc644b5bb99af2ebc2051733db6a73ebdf786cdbde890a9bc59c457bc886b653de9a2b0bc8b18f7bc59d09f3c75b6a83b90f55e3ce92bb4bd8a06f03c1b151f3abfbabbbd7afe443de90de5bd7edb2c3d074213bc2752693b3d55cb3cf93f273c67a8743c07b90f3de707a6bc80e1eb3d9cf18b3dea4983bdf5ebc2bb1408e1bcadedee3cd53a59bd4f8dccba9a5601bc8b3646bdc2674d3d2cc41cbd0fa275bd9d7a8f3ca01b59bd3c61933d29170b3d2fdc623de1ad02bd03eeaebcb61e3b3c5735153dfcec383d057df1bb8f01a73d0e43093d56238ebcc0618e3d24b19f3aa47b053d130222bd4de6793c838e7dbdae94c1bd1c2726bd8a06f03d8eef1fbcde4d563dbda8b43ccf75813df1b5adbd456848bc89a7033eedf614bed658a8bc21637a3d80e16bbd83b894bc53e1b03c4d7b453d6f5c053df55677bd738652bc93a2703d3442cebc60d1953d2c2fd1bcc397a3bd7b994f3c197a143d6c0e603d1a03183ef5df7abdbd8ae53c95c67ebb74a4a13b02d0df3ccece2ebde92b34bd92cc07bd93558bbc7162c43d0589393df12c2abda7b11abc277c00be48aaa53b720917bd87ee293e185cc5bcd6c3dcbc27c9e53b716244bb3ccc473da728973d43afee3b946792bdb6a7bebc78f8053d97f6543d4c7586bd87e261bc58e37fbd5e23cebdc8d99a3c608b183d7701bdbdbf5bbb3d84233b3da6fe2a3e0f0034bd4e10b83d7cd9403db7921fbd6bdf3e3dd92096bd4b53053daad6ae3afbc7a03d3857c6bd9145b9bc884838be6707bb3c93b5f2bcfa2dae3d9b1012bd0ca98ebdb9ce73bd5c4d073d8d6db5bd140c9dbddee7743d4f2b09bd70d2133dc63d6b3d1d3d833d31dba33c42bc11be339856bd1aba67bae2b709bed278fdbd578e17bd41882c3eade05a3d9d3352bde48d503d4660b03cb3ba1bbc8a63093e47e9fd3d01aad0bc5875033ed0efaf3c8ea11a3ca226a73d4eaaaabccdfe97bbb08479bd8eee133e31281dbeedd7ca3c1da390bd00d489bd833c4f3c67073bbe754cf93dc5e802bddcc4b43ded71bdbbbc518f3b132531becf6e513cb75e3a3ccb30403e1897273c59fed03c691167bc3bae6bbd4b060cbcd71ed9bc607204bcaad6aebd9f82083b7e30663d696f853cf4a0e6bbe48d50bdc0dc19bdd6376dbd5da2efbcd7b84b3c868b05be711f8dbc3a7297bda28cb43d3789ee3b25a0113ca226a7bbaaefc23d18311a3ed7d15fbdd1708ebd6072043d090d5fbd6316a33c059be83c07ea9ebb3500a1bc58e37f3c37896e3dc2b2603ddac2773ce6dc06bd602d7a3d6b92c5bc62aed83b4660b0bd369a933ded0b303d406ddb3caffb2bbd71277cbc58288abc1170ed3bd920963dd7d15fbd2a5f813c90ab463df27d263c11706dbd1f6043bd978507bd02913cbd27c351bc037828bd0f00b4bc7c0da6bd8861cc3c239e543dfe52abbbab23a8bd9651a23cef2681bd9f8208bd688899bd3f3107bdb32029be17b03bbd6e3664bcccb19e3dc9c8f5bb7410a5bd4ef7a3bde574bcbcf5d4cbbc8814d3bc2a1af73cfcb6fb3ca27320bb3ee48d3c1edf643c912ca53ddf1b5abc41a140bdd9d39c3d6b79313cb7ab33bd9ac318bd64631cbdbfa8b4bddcc4b4bcdee774bd2d5099bd6d9482bc4b060c3d09c0e5bc339856bd398b2b3d4f2b09beb9ce73bd75440abcefe1f63b138b3ebc12f14bbde2b7093b1c099e3d52e83b3d3ee48d3dea1a9839e1e9b1bbae61393df7d6083e70859abd6bdfbe3d949cde3c4b068cbafbae0c3df95f56bbb07c0a3d0378a83bfa7a273d39d8a43c32c20fbc253a04bd67eea6bc0750ac3d9b65fa3cc2ff593d5450063d5917e53c79cf14bdb611c13daaefc2bc162f5dbd3f3976bcf3b18b3d3baeebbd969e1bbd58e37fbc305ac53d0737983caaefc2ba3566aebb3fd3683db62ad53cfae0b4bcaad6aebb3432493d716c063ba35a8cbdb82c92bc2978953d59fed0bcfd37da3deb0184bd4d29cc3bcdfe97bbd4c7333d92c6973daa8935bdc6d7dd3c3fd3e83c1c22323df196babc452c4bbdca62683d59b157bcfc50ee3b25a091bc2e37053c7127fc3cdc77bb3dc042a7bc2c82c1bd3a0c0abb0c5c953c91f83fbd');
INSERT INTO public.job_schedules VALUES ('local', 'nightly', '30 2 * * MON-FRI', 'Europe/Berlin', 'reindex', '{"collection":"hr_policies","model":null}', '39b8a486488b4d23971b891b95558c23', 0, 1796002200, '2026-11-28T22:51:24.505+00:00');
INSERT INTO public.job_webhooks VALUES (1, 'http://127.0.0.1:9/done', 1795906285.4980857, 1, NULL, '[Errno 111] Connect call failed (''127.0.0.1'', 9)');
INSERT INTO public.jobs VALUES (1, 'd85c5f8c-51eb-425f-941f-4848fa15fedb', 'local', 'batch_embed', 'completed', '', 0, 0, 0, 1, 1, 0, NULL, NULL, NULL, 3, 3, 'done', 3, 894.899431727697, NULL, 3, '{"model": "wordllama-l2-supercat-256", "dimension": 256, "count": 3}', 3, 3072, NULL, 'once', 'c4b53a448416870c2aa28d7cb28c1f8c892a7a169231d92a37e8107aedd02f55', '2026-11-28T22:51:23.333+00:00', '2026-11-28T22:51:23.333+00:00', '2026-11-28T22:51:23.413+00:00');
INSERT INTO public.jobs VALUES (2, '5aff39f8-2cef-408b-9bdc-a5877b4c04f1', 'local', 'rag_ingest', 'failed', '39b8a486488b4d23971b891b95558c23', 0, 0, 0, 0, 1, 1, NULL, NULL, NULL, 0, 0, '', 0, NULL, NULL, 2, NULL, 0, 0, '{"code": "conflict", "message": "collection ''hr_policies'' was made with chunk_size 256, not 33: leave it out, or delete the collection and ingest anew", "details": {"collection": "hr_policies", "chunk_size": 256}, "request_id": null}', NULL, NULL, '2026-11-28T22:51:23.494+00:00', '2026-11-28T22:51:23.494+00:00', '2026-11-28T22:51:23.498+00:00');
INSERT INTO public.jobs VALUES (4, '0c3917ac-148b-497a-be54-c57e694fd3b0', 'local', 'batch_embed', 'queued', '', 0, 0, 1, 0, 0, 0, NULL, NULL, NULL, 0, 0, '', 0, NULL, NULL, 1, NULL, 0, 0, NULL, NULL, NULL, '2026-11-28T22:51:24.534+00:00', NULL, NULL);
INSERT INTO public.jobs VALUES (3, '79618464-38c3-4757-a92b-b0c93ca9c2a3', 'local', 'batch_embed', 'queued', '', 0, 32472144000, 0, 1, 0, 0, NULL, NULL, NULL, 0, 0, '', 0, NULL, NULL, 1, NULL, 0, 0, NULL, NULL, NULL, '2026-11-28T22:51:24.519+00:00', NULL, NULL);
SELECT pg_catalog.setval('public.huey_schedule_id_seq', 1, false);
SELECT pg_catalog.setval('public.huey_task_id_seq', 1, false);
SELECT pg_catalog.setval('public.jobs_number_seq', 4, true);
ALTER TABLE ONLY public.collections
    ADD CONSTRAINT collections_id_key UNIQUE (id);
ALTER TABLE ONLY public.collections
    ADD CONSTRAINT collections_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.huey_counter
    ADD CONSTRAINT huey_counter_pkey PRIMARY KEY (queue, key);
ALTER TABLE ONLY public.huey_kv
    ADD CONSTRAINT huey_kv_pkey PRIMARY KEY (queue, key);
ALTER TABLE ONLY public.huey_schedule
    ADD CONSTRAINT huey_schedule_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.huey_task
    ADD CONSTRAINT huey_task_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.job_dependencies
    ADD CONSTRAINT job_dependencies_pkey PRIMARY KEY (job, waits_for);
ALTER TABLE ONLY public.job_params
    ADD CONSTRAINT job_params_pkey PRIMARY KEY (job);
ALTER TABLE ONLY public.job_rows
    ADD CONSTRAINT job_rows_pkey PRIMARY KEY (job, first);
ALTER TABLE ONLY public.job_schedules
    ADD CONSTRAINT job_schedules_pkey PRIMARY KEY (owner, name);
ALTER TABLE ONLY public.job_webhooks
    ADD CONSTRAINT job_webhooks_pkey PRIMARY KEY (job);
ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_id_key UNIQUE (id);
ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (number);
ALTER TABLE ONLY public.loose_collections
    ADD CONSTRAINT loose_collections_pkey PRIMARY KEY (physical);
CREATE INDEX huey_schedule_queue_timestamp ON public.huey_schedule USING btree (queue, "timestamp");
CREATE INDEX huey_task_queue_priority_id ON public.huey_task USING btree (queue, priority DESC, id);
CREATE INDEX ix_job_dependencies_waits_for ON public.job_dependencies USING btree (waits_for);
CREATE INDEX ix_job_schedules_next_at ON public.job_schedules USING btree (next_at);
CREATE INDEX ix_job_webhooks_due_at ON public.job_webhooks USING btree (due_at);
CREATE UNIQUE INDEX jobs_by_key ON public.jobs USING btree (owner, idempotency_key) WHERE (idempotency_key IS NOT NULL);
CREATE INDEX jobs_by_owner ON public.jobs USING btree (status, owner, priority DESC, number);
ALTER TABLE ONLY public.job_dependencies
    ADD CONSTRAINT job_dependencies_job_fkey FOREIGN KEY (job) REFERENCES public.jobs(number);
ALTER TABLE ONLY public.job_dependencies
    ADD CONSTRAINT job_dependencies_waits_for_fkey FOREIGN KEY (waits_for) REFERENCES public.jobs(number);
ALTER TABLE ONLY public.job_params
    ADD CONSTRAINT job_params_job_fkey FOREIGN KEY (job) REFERENCES public.jobs(number);
ALTER TABLE ONLY public.job_rows
    ADD CONSTRAINT job_rows_job_fkey FOREIGN KEY (job) REFERENCES public.jobs(number);
ALTER TABLE ONLY public.job_webhooks
    ADD CONSTRAINT job_webhooks_job_fkey FOREIGN KEY (job) REFERENCES public.jobs(number);
INSERT INTO public.collections VALUES ('hr_policies', '18cd7f28-eb51-46c8-8380-137f90bc9571', 'wordllama-l2-supercat-256', 256, 256, 32, '2026-11-28T22:50:45+00:00', 'bm25-multilingual-2', 'qdrant', NULL, 0, 0);
